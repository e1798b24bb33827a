"""Look into a reward model: rewards of two answers, and the latents by which they differ, as tables and as one HTML page.

    python examples/look_into_a_reward_model.py MODEL [--conversations FILE.jsonl] [--top 10] [--page page.html]

MODEL is a folder with a reward model that `sarm` opens (docs/python.md). FILE has one JSON object a line, {"messages": [turns]}, each
ending with the assistant's turn; without it two answers to one question are scored. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sarm import Conversation, EnvironmentProblem, JobError, LoadedRewardModel, UsageProblem, load_reward_model

QUESTION = "How do I boil an egg?"
ANSWERS = ("Put it into boiling water for eight minutes, then into cold water.", "Eggs are awful and so is your question.")


def own_conversations() -> list[Conversation]:
    """One question, two answers."""
    turns = ({"role": "user", "content": QUESTION},)
    return [Conversation.model_validate({"messages": [*turns, {"role": "assistant", "content": answer}]}) for answer in ANSWERS]


def conversations_of(path: Path) -> list[Conversation]:
    """The conversations of a JSONL file. Raises EnvironmentProblem and UsageProblem."""
    if not path.is_file():
        raise EnvironmentProblem(f"{path}: no such file; give one JSON object a line: {{\"messages\": [...]}}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Conversation.model_validate(json.loads(line)))
        except ValueError as error:
            raise UsageProblem(f"{path}:{number}: no conversation; write {{\"messages\": [...]}} that ends with the assistant") from error
    return found


def look(model: LoadedRewardModel, conversations: list[Conversation], *, top: int) -> list[str]:
    """Print rewards and what made them; gives the same as pieces of HTML."""
    rewards = model.rewards(conversations)
    print(rewards.to_frame().to_string(), end="\n\n")
    pieces = [model._repr_html_(), rewards._repr_html_()]
    try:
        explained = model.explained_rewards(conversations, top=top)
    except UsageProblem as problem:
        # A model without latents still has rewards.
        print(problem, file=sys.stderr)
        return pieces
    for conversation, one in zip(conversations, explained, strict=True):
        print(f"reward {one.reward:.4f} = latents below + rest {one.rest:.4f} + bias {one.bias:.4f}")
        print(one.to_frame().to_string(index=False), end="\n\n")
        pieces += [conversation._repr_html_(), one._repr_html_()]
    if len(explained) == 2:
        first, second = (one.to_frame().set_index("latent")["contribution"] for one in explained)
        difference = first.sub(second, fill_value=0.0).sort_values(key=abs, ascending=False)
        print("first minus second, latent by latent (of those that are listed):")
        print(difference.head(top).to_string())
    return pieces


def main() -> int:
    """Read the arguments and look; exit codes as the commands have them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a reward model")
    parser.add_argument("--conversations", type=Path, help="JSONL file of conversations")
    parser.add_argument("--top", type=int, default=10, help="latents to list for each reward")
    parser.add_argument("--page", type=Path, help="HTML file to write")
    asked = parser.parse_args()
    try:
        conversations = conversations_of(asked.conversations) if asked.conversations else own_conversations()
        pieces = look(load_reward_model(asked.model), conversations, top=asked.top)
    except JobError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    if asked.page:
        head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>A reward model</title>'
        asked.page.write_text(f"{head}{''.join(pieces)}</html>\n", encoding="utf-8")
        print(f"\npage: {asked.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
