"""Published yes/no parsing rules that metrics apply in addition to the reward's own."""

from __future__ import annotations


def vcd_answer(text: str, target: str) -> str:
    """The true answer if its letters occur anywhere in the text, else the other one.

    Therefore `no` also matches "know" and "another", and "yes and no" is always correct. Source:
    VCD's `eval_pope.py`.
    """
    if target in text.lower():
        return target
    return "no" if target == "yes" else "yes"


def beginning(text: str) -> str | None:
    """`yes` or `no`, whichever the text begins with, ignoring case; None otherwise.

    This is P2-DPO's variant of the rule; "Not sure" counts as `no`.
    """
    lower = text.strip().lower()
    return next((word for word in ("yes", "no") if lower.startswith(word)), None)
