"""A part of the report page, and how its templates are filled: whatever is shown is escaped, and each maker answers for its own HTML."""

from __future__ import annotations

from pydantic import Field

from replication.data_folders import templates_folder
from replication.frozen import Frozen

# Templates of the report page, below the folder of the others.
FOLDER = "report"


class Section(Frozen):
    """A titled part of the page."""

    anchor: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="Its address in the page, unique there.")
    title: str = Field(description="Plain text; escaped by the page.")
    html: str = Field(description="Markup, already escaped by its maker; may hold a `<style>` and a `<script>` of its own.")


def filled(template: str, **values: object) -> str:
    """A template of the page with values, each of which is escaped unless the template says that it is markup."""
    # Loaded here: other rooms of the house take only the type.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(templates_folder()), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(f"{FOLDER}/{template}.html.j2").render(**values)
