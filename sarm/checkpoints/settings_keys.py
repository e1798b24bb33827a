"""Keys of other people's settings: which are read and of what type, which would change a number, which are known to be harmless.

A key that nothing reads may change what a model computes, as a tensor may that nothing reads (`leftovers`). So a key that is read has
one type, a key that is known to change the computation is refused by name wherever it is on, and any other key that is on and does not
stand among the harmless ones of its layout is told. The lists follow EleutherAI/sparsify and its forks, SAELens 2 to 6,
dictionary_learning 0.1, lm_saes, and the released SARM configs.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sarm.job import UsageProblem

CURE = "mend it or fetch it again"


class Kind(NamedTuple):
    """What a value may be: in words, as a test, and whether null stands for an absent key."""

    words: str
    fits: Callable[[object], bool]
    nullable: bool = True


def _whole(value: object) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
# Where null would have to be guessed.
DECIDED = Kind("true or false", lambda value: isinstance(value, bool), nullable=False)
WHOLE = Kind("a whole number", _whole)
NUMBER = Kind("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, Mapping))
TEXT_OR_TRUTH = Kind("a text, true or false", lambda value: isinstance(value, str | bool))


class Keys(NamedTuple):
    """The keys of one layout: those read, with their types; those that change the computation, with the values at which they do not
    (false, 0, null and "" beside them); and those that are harmless whatever they say.
    """

    read: Mapping[str, Kind]
    changing: Mapping[str, tuple[object, ...]]
    harmless: frozenset[str]


def _shown(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:60]


def key_names(*lines: str) -> frozenset[str]:
    """Names that stand in lines."""
    return frozenset(" ".join(lines).split())


# What every layout may say of the training, the text and the program that made the file.
TRAINING = key_names(
    "lr lr_end lr_scheduler lr_scheduler_name lr_warm_up_steps lr_warmup_steps lr_decay_steps optimizer adam_beta1 adam_beta2 betas b1 b2",
    "seed init_seeds steps batch_size train_batch_size train_batch_size_tokens micro_acc_steps grad_acc_steps training_tokens max_tokens",
    "total_training_tokens auxk_alpha top_k_aux dead_feature_window dead_feature_threshold l1_coefficient k_decay_steps loss_fn",
    "dataset dataset_path dataset_name dataset_trust_remote_code streaming text_column context_size ctx_len prepend_bos",
    "model model_name model_name_or_path lm_name hook_name hook_point hook_layer hookpoint hookpoints layer layers device dtype",
    "run_name save_dir save_every n_checkpoints checkpoint_path log_to_wandb wandb_name wandb_project wandb_entity wandb_id",
    "wandb_log_frequency version library_version sae_lens_version sae_lens_training_version expansion_factor metadata neuronpedia_id",
)


def check_keys(raw: Mapping[str, object], keys: Keys, where: str, *, within: str = "") -> None:
    """Warns of keys of `raw` that are on and unknown. `where` names the file, `within` the key inside which these stand.

    Raises UsageProblem that names a key whose value is of another type than it must be, or which changes the computation and is on.
    """
    inside = f"{within}." if within else ""
    for key, kind in keys.read.items():
        check_kind(raw, key, kind, where, within=within)
    for key, off in keys.changing.items():
        value = raw.get(key)
        if value and value not in off:
            raise UsageProblem(f"{where}: {inside}{key} = {_shown(value)} changes what is computed and cannot be converted")
    known = keys.read.keys() | keys.changing.keys() | keys.harmless | TRAINING
    tell_unread([f"{inside}{key}" for key, value in raw.items() if value and key not in known], where)


def check_kind(raw: Mapping[str, object], key: str, kind: Kind, where: str, *, within: str = "") -> None:
    """Raises UsageProblem where a key stands in `raw` and its value is of another type than `kind`; the rest as for `check_keys`."""
    if key in raw and not (raw[key] is None and kind.nullable) and not kind.fits(raw[key]):
        inside = f"{within}." if within else ""
        raise UsageProblem(f"{where}: {inside}{key} = {_shown(raw[key])} must be {kind.words}; {CURE}")


def tell_unread(unread: Iterable[str], where: str) -> None:
    """Warns of keys that nothing here reads, in one line; of none, says nothing."""
    unread = list(unread)
    if unread:
        shown = ", ".join(repr(key) for key in unread[:5]) + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
        warnings.warn(f"{where}: not read here: {shown}; where one of them changes what is computed, numbers differ", stacklevel=2)


def check_sizes(stated: Mapping[str, object], *, sizes: Mapping[str, int], where: str) -> None:
    """Raises UsageProblem that names a size in settings (absent, null and 0 say nothing) which is not that of the tensors."""
    for key, size in sizes.items():
        value = stated.get(key)
        if value and not (_whole(value) and value == size):
            stated_size = f"{key} = {_shown(value)}, and the tensors have {size}"
            raise UsageProblem(f"{where}: {stated_size}; one of the two files belongs to another SAE")


def agreed(raw: Mapping[str, object], *keys: str, where: str) -> object:
    """The value of a setting that has several names: None where none of them stands there.

    Raises UsageProblem where two of them contradict each other.
    """
    found = [(key, raw[key]) for key in keys if raw.get(key) is not None]
    other = next(((key, value) for key, value in found if value != found[0][1]), None)
    if other is not None:
        both = " and ".join(f"{key} = {_shown(value)}" for key, value in (found[0], other))
        raise UsageProblem(f"{where}: {both} contradict each other; correct one")
    return found[0][1] if found else None
