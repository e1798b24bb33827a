"""Whether numbers of a setting may be judged against the paper's, and if not why."""

from __future__ import annotations

from replication.recipes.jobs_needed import unpinned_revisions
from replication.recipes.setting import Setting
from replication.settings.value_sources import replacements

# Fields that cut a run short; 0 means whole.
PARTIAL = (("reward", "max_pairs"), ("reward", "max_steps"), ("scoring", "limit"), ("scoring", "subset"))
# What fits into memory and which kernels there are differs from machine to machine; the noise budget is for such last digits.
ROUNDING_ALONE = (("scoring", "batch_tokens"), ("scoring", "batches"), ("scoring", "batch_rows"), ("scoring", "attention"))


def why_not_comparable(setting: Setting) -> str:
    """Why the numbers may not be judged against the paper's; empty when they may."""
    if not setting.profile.comparable:
        return setting.profile.why_not_comparable
    changed = [
        f"{section}.{name}"
        for section, given in setting.overrides.items()
        for name in given
        if "resources" not in section and (section, name) not in ROUNDING_ALONE
    ]
    if changed:
        return f"--set changes {', '.join(changed)}"
    reason = ("" if setting.source == "released" else _why_not_as_the_paper(setting)) or _why_only_a_part(setting)
    unpinned = unpinned_revisions(setting)
    if not reason and unpinned:
        reason = f"revisions are not pinned: {', '.join(repository for repository, _ in unpinned)}"
    return reason


def _why_not_as_the_paper(setting: Setting) -> str:
    """What of a training is not as the protocol says."""
    foreign = [slot for slot, start in setting.profile.starts.items() if start.use and not start.is_the_papers]
    if foreign:
        return f"the SAE of slot {', '.join(foreign)} is another project's"
    replaced = replacements(protocol=setting.protocol, profile=setting.profile, overrides={})
    if replaced:
        return f"profile {setting.profile.name} replaces values of protocol {setting.protocol.name}: {'; '.join(replaced)}"
    return ""


def _why_only_a_part(setting: Setting) -> str:
    cut = [f"{section}.{name}" for section, name in PARTIAL if getattr(setting.profile, section).get(name)]
    return f"profile {setting.profile.name} takes only a part: {', '.join(cut)}" if cut else ""
