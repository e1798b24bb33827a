"""How every drawing looks and is saved: one style, colours for all eyes, and the same bytes for the same numbers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from sarm.store.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FigureFormat = Literal["png", "svg", "pdf"]
FORMATS: tuple[FigureFormat, ...] = ("png", "svg", "pdf")
# None takes out what would differ from run to run.
METADATA: Mapping[FigureFormat, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
DOTS = 160
STYLE: Any = {
    "svg.hashsalt": "replicate",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
INK, MUTED, LINE, PAPER = "#1b1f24", "#667080", "#dde2e8", "#ffffff"
# Colours of Okabe and Ito, told apart by colour-blind readers; markers and line styles tell them apart in grey.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)))
# A picture that is looked at on a screen: text stays text (smaller, and read aloud), and no text of ours is mathematics.
SCREEN: Any = {
    **STYLE,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
}
# What a viewer in dark mode sees instead; others ignore the rule.
DARK: Mapping[str, str] = {INK: "#e6e9ee", MUTED: "#9aa4b2", LINE: "#2d333c", PAPER: "#14171c", BLUE: "#4aa3df", VERMILLION: "#f08a45"}
FONTS = "'DejaVu Sans', Verdana, sans-serif"


@contextmanager
def styled(style: Any = STYLE) -> Iterator[None]:
    """Draw in the house's style, whatever the user's own settings say."""
    import matplotlib as mpl  # noqa: PLC0415 - a second of import, which only who draws should pay

    with mpl.rc_context({**mpl.rcParamsDefault, **style, "backend": "agg"}), warnings.catch_warnings():
        # A viewer of the SVG has more scripts than the one font of the PNG, which shows a box in place of a sign that it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def save(
    figure: Figure, folder: Path, name: str, formats: Sequence[FigureFormat], *, title: str = "", description: str = ""
) -> tuple[Path, ...]:
    """Writes `<name>.<format>` into the folder, which is made; the paths, in the order asked for.

    With a title and a description, which go into the SVG as its text alternative, the SVG also follows a viewer's dark mode.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - as above

    FigureCanvasAgg(figure)
    # The layout is found once; every format would find it anew, which takes longer than drawing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix in formats:
        path = folder / f"{name}.{suffix}"
        with whole_file(path) as partial:
            figure.savefig(partial, format=suffix, dpi=DOTS, metadata=METADATA[suffix])
            if suffix == "svg" and title:
                partial.write_text(told(partial.read_text(encoding="utf-8"), title=title, description=description), encoding="utf-8")
        paths.append(path)
    return tuple(paths)


def told(svg: str, *, title: str, description: str) -> str:
    """An SVG with its text alternative and with colours for a dark viewer."""
    rules = "".join(f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}' for light, dark in DARK.items() for kind in ("fill", "stroke"))
    head = (
        f'<title id="title">{escape(plain(title))}</title>\n<desc id="description">{escape(plain(description))}</desc>\n'
        f"<style>@media screen and (prefers-color-scheme: dark){{{rules}}}</style>\n"
    )
    # A hundredth of a point is less than anybody sees, and a third of the file. Digits of texts are left as they are.
    short = re.sub(r"<[^!?>][^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    marked = re.sub(r"<svg ", '<svg role="img" aria-labelledby="title description" ', short, count=1)
    begins = marked.index(">", marked.index("<svg ")) + 1
    return (marked[:begins] + "\n" + head + marked[begins:]).replace("'DejaVu Sans'", FONTS)


def plain(text: str, *, longest: int = 0) -> str:
    """Text without what neither XML nor a font can show (controls, half surrogates), cut to `longest` signs where that is not 0."""
    clean = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return clean if not longest or len(clean) <= longest else clean[: longest - 1] + "…"
