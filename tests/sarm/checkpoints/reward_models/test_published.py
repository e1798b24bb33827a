"""Published reward models: our scores against those of the published evaluation package's own classes, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from baseline_checkpoints import BOS, CONFIGS, END_OF_TURN, OPENING, rows_of, write_checkpoint
from folders import FIXTURES
from tiny import edit_json, edit_tensors
from transformers import AutoModelForSequenceClassification

from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.reward_models.published import official_bos, published_layout
from sarm.checkpoints.tensors import TensorFolder
from sarm.job import UsageProblem
from sarm.reward.baselines import GatedRewardModel, LabelDistributionRewardModel, ValueHeadRewardModel, last_opening
from sarm.reward.models import DenseRewardModel, RewardModel
from sarm.scoring.inference import RowBatch, score_rows

LDL = LabelDistributionRewardModel


def rewards_of(model: RewardModel, rows: list[list[int]], *, pad_id: int, first_masked: bool = False) -> list[float]:
    """Rewards in the order of `rows`."""
    rewards = [float("nan")] * len(rows)

    def take(batch: RowBatch) -> None:
        for index, reward in zip(batch.indices, batch.rewards.tolist(), strict=True):
            rewards[index] = reward

    score_rows(model, rows, pad_id=pad_id, batch_tokens=10_000, first_masked=first_masked, take=take)
    return rewards


def close(ours: list[float], theirs: list[float]) -> bool:
    """Equal up to float32 rounding."""
    return torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_those_of_the_published_class(name: str, tmp_path: Path) -> None:
    expected = json.loads((FIXTURES / "baselines" / f"{name}.json").read_text())
    assert expected["rows"] == rows_of(name)
    model = load_reward_model(write_checkpoint(tmp_path / name, name))
    pad_id = CONFIGS[name]["pad_token_id"]
    assert close(rewards_of(model, expected["rows"], pad_id=pad_id), expected["scores"])
    bos = official_bos(published_layout(tmp_path / name, TensorFolder(tmp_path / name)), CONFIGS[name])
    doubled = expected["rows"] if bos == "single" else [[row[0], *row] for row in expected["rows"]]
    ours = rewards_of(model, doubled, pad_id=pad_id, first_masked=bos == "double-first-masked")
    assert close(ours, expected["scores_of_double_bos"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("armorm", GatedRewardModel), ("qrm-llama3", GatedRewardModel), ("grm-mlp", ValueHeadRewardModel), ("ldl", LDL)],
)
def test_the_reward_is_the_head_times_the_features(name: str, kind: type[RewardModel], tmp_path: Path) -> None:
    model = load_reward_model(write_checkpoint(tmp_path / name, name))
    assert isinstance(model, kind)
    row = rows_of(name)[0]
    output = model(torch.tensor([row]), torch.tensor([len(row) - 1]))
    assert output.features is not None
    assert close(model.reward_of(output.features).tolist(), output.rewards.tolist())


@pytest.mark.parametrize("name", ["armorm", "ldl", "grm-mlp"])
def test_heads_stay_in_float32_under_a_bfloat16_backbone(name: str, tmp_path: Path) -> None:
    model = load_reward_model(write_checkpoint(tmp_path / name, name), dtype=torch.bfloat16)
    kinds = {key: value.dtype for key, value in model.state_dict().items() if value.is_floating_point()}
    assert {dtype for key, dtype in kinds.items() if key.startswith("model.")} == {torch.bfloat16}
    assert {dtype for key, dtype in kinds.items() if not key.startswith("model.")} == {torch.float32}
    exact = load_reward_model(tmp_path / name)
    assert torch.equal(exact.state_dict()["score.weight"], model.state_dict()["score.weight"])


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("classifier")])
def test_a_sequence_classifier_scores_as_transformers_of_today(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / name, name)
    model = load_reward_model(folder)
    assert isinstance(model, DenseRewardModel)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    rows = rows_of(name)
    logits = [theirs(input_ids=torch.tensor([row])).logits.item() for row in rows]
    assert close(rewards_of(model, rows, pad_id=0), logits)


def test_quantiles_need_not_be_as_many_as_objectives(tmp_path: Path) -> None:
    # QRM-v2 has 5 objectives of 19 quantiles by its card; its class is not in the package, so this is the formula written out.
    folder = write_checkpoint(tmp_path / "qrm", "qrm-llama3")
    edit_json(folder / "config.json", num_quantiles=3)
    weight = torch.linspace(-1, 1, 15 * 8).reshape(15, 8)
    replace(folder, regression_layer__weight=weight)
    model = load_reward_model(folder)
    assert isinstance(model, GatedRewardModel)
    matrix = torch.tensor(model.transform.weight.T.tolist())
    pooled = torch.linspace(0, 1, 16).reshape(2, 8)
    by_hand = torch.stack([(weight @ row).reshape(5, 3).mean(dim=1) for row in pooled]) @ matrix
    torch.testing.assert_close(model.objective_rewards(pooled).detach(), by_hand)


def test_a_published_head_is_not_saved_as_a_model_of_ours(tmp_path: Path) -> None:
    model = load_reward_model(write_checkpoint(tmp_path / "ldl", "ldl"))
    with pytest.raises(UsageProblem, match="LabelDistributionRewardModel"):
        save_reward_model(tmp_path / "copy", model, encoder="none", tokenizer=None)


def test_the_last_of_several_assistant_headers_is_found_before_the_padding() -> None:
    row = [BOS, 7, *OPENING, 8, END_OF_TURN, *OPENING, 9, END_OF_TURN]
    ids = torch.tensor([row, row[:9] + [0] * (len(row) - 9)])
    assert last_opening(ids, torch.tensor([len(row) - 1, 8]), OPENING).tolist() == [9, 2]


def test_a_conversation_without_assistant_header_is_refused(tmp_path: Path) -> None:
    model = load_reward_model(write_checkpoint(tmp_path / "armorm", "armorm"))
    with pytest.raises(UsageProblem, match="no assistant header"):
        rewards_of(model, [[BOS, 5, 6, 7, 8, 9, END_OF_TURN]], pad_id=0)
    with pytest.raises(UsageProblem, match="no assistant header"):
        rewards_of(model, [[BOS, END_OF_TURN]], pad_id=0)
    assert isinstance(model, GatedRewardModel)
    with pytest.raises(TypeError, match="prompt"):
        model.features(torch.zeros(1, 8))


def drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    """Take a tensor away."""
    del tensors[name]


def replace(folder: Path, **new: torch.Tensor) -> None:
    """Set tensors, with `__` in a name for a dot."""
    named = {name.replace("__", "."): value for name, value in new.items()}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(named))


def without(name: str, folder: Path, tensor: str) -> Path:
    """A checkpoint that lacks one tensor."""
    write_checkpoint(folder, name)
    edit_tensors(folder / "model.safetensors", lambda tensors: drop(tensors, tensor))
    return folder


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("armorm", "regression_layer.weight"),
        ("armorm", "gating.layers.1.bias"),
        ("armorm", "gating.logit_scale"),
        ("qrm-llama3", "gating.layers.6.bias"),
        ("grm-linear", "v_head.summary.bias"),
        ("qrm-llama3", "gating.layers.2.running_var"),
        ("grm-mlp", "model.layers.1.mlp.up_proj.weight"),
        ("ldl", "layers.0.mlp.up_proj.weight"),
    ],
)
def test_a_missing_tensor_is_named(name: str, tensor: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=tensor.replace(".", r"\.")):
        load_reward_model(without(name, tmp_path / name, tensor))


@pytest.mark.parametrize("name", ["armorm", "grm-linear", "ldl"])
def test_an_extra_or_misshapen_tensor_is_named(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / name, name)
    replace(folder, spare=torch.zeros(2))
    with pytest.raises(UsageProblem, match="unknown tensor 'spare'"):
        load_reward_model(folder)
    edit_tensors(folder / "model.safetensors", lambda tensors: drop(tensors, "spare"))
    replace(folder, **{"norm__weight" if name == "ldl" else "model__norm__weight": torch.ones(3)})
    with pytest.raises(UsageProblem, match=r"norm\.weight' has shape \[3\], the config asks for \[8\]"):
        load_reward_model(folder)


def test_sizes_that_disagree_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "qrm", "qrm-llama3")
    edit_json(folder / "config.json", num_quantiles=4)
    with pytest.raises(UsageProblem, match="5 objectives x 4 quantiles"):
        load_reward_model(folder)
    edit_json(folder / "config.json", num_quantiles=5, num_objectives=6)
    with pytest.raises(UsageProblem, match="says 6 objectives"):
        load_reward_model(folder)
    ldl = write_checkpoint(tmp_path / "ldl", "ldl")
    gate = torch.load(ldl / "gating_layer.pt")
    torch.save({**gate, "network.6.weight": torch.zeros(3, 6), "network.6.bias": torch.zeros(3)}, ldl / "gating_layer.pt")
    with pytest.raises(UsageProblem, match="not 3 objectives x 10 bins"):
        load_reward_model(ldl)
    grm = write_checkpoint(tmp_path / "grm", "grm-linear")
    replace(grm, v_head__summary__weight=torch.zeros(2, 8), v_head__summary__bias=torch.zeros(2))
    with pytest.raises(UsageProblem, match="more than one value"):
        load_reward_model(grm)


def test_a_head_file_that_is_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ldl", "ldl")
    torch.save({"network": Path("x")}, folder / "gating_layer.pt")
    with pytest.raises(UsageProblem, match=r"gating_layer\.pt: not a file of plain tensors"):
        load_reward_model(folder)


def test_the_language_model_head_of_grm_training_is_ignored(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "grm", "grm-mlp")
    plain = rewards_of(load_reward_model(folder), rows_of("grm-mlp"), pad_id=0)
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({"lm_head.weight": torch.ones(40, 8)}))
    assert rewards_of(load_reward_model(folder), rows_of("grm-mlp"), pad_id=0) == plain


def test_two_labels_and_unknown_remote_code_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "rm", "classifier-llama")
    edit_json(folder / "config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}, num_labels=2)
    with pytest.raises(UsageProblem, match="2 labels; a reward model has exactly one"):
        load_reward_model(folder)
    edit_json(folder / "config.json", num_labels=1, id2label={"0": "r"}, label2id={"r": 0})
    edit_json(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling_x.X"})
    with pytest.raises(UsageProblem, match=r"remote code modeling_x\.X, which is never run"):
        load_reward_model(folder)
    edit_json(folder / "config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    assert isinstance(load_reward_model(folder), DenseRewardModel)
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling_y.Y"})
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({"v_reward.weight": tensors.pop("score.weight")}))
    with pytest.raises(UsageProblem, match=r"no tensor 'score\.weight'.*modeling_y\.Y"):
        load_reward_model(folder)


def test_a_known_layout_loads_although_its_config_names_remote_code(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "armorm", "armorm")
    edit_json(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"})
    assert isinstance(load_reward_model(folder), GatedRewardModel)
