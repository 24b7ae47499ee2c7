"""Published rules of reading yes and no that metrics apply beside the reward's."""

from __future__ import annotations


def vcd_answer(text: str, target: str) -> str:
    """The true answer if its letters are anywhere in the text, else the other one.

    So `no` is found in "know" and "another", too, and "yes and no" is always right (source: VCD's `eval_pope.py`, read there).
    """
    if target in text.lower():
        return target
    return "no" if target == "yes" else "yes"


def beginning(text: str) -> str | None:
    """`yes` or `no`, whichever the text begins with, in any case: P2-DPO's variant of the rule, which "Not sure" satisfies, too."""
    lower = text.strip().lower()
    return next((word for word in ("yes", "no") if lower.startswith(word)), None)
