"""The workload of P2-DPO in docs/reproduce.md is that of its config and of the published row counts."""

from pathlib import Path

from perceptune.planning import policies as planning

from tests.shipped import FOLDER, raw_of

QUESTIONS = {"pope": 9000, "amber": 15_220, "hallusionbench": 1129, "mmhal": 96, "textvqa": 4370}
"""Rows by dataset (docs/data.md); `textvqa` are the boxes."""
VCD = ("pope-vcd", "mmhal-vcd")


def test_the_workload_of_p2dpo() -> None:
    plan = planning.load(raw_of(FOLDER / "papers/p2dpo.yaml"))
    blocks = plan.config.benchmarks
    assert all(block.n == 0 for block in blocks.values())
    answers = {name: QUESTIONS[block.dataset] * len(block.views) for name, block in blocks.items()}
    verdicts = {name: count for name, count in answers.items() if blocks[name].judge}
    named = {policy: set(plan.benchmarks(policy)) for policy in plan.policies}
    assert {policy for policy, names in named.items() if names & {*VCD}} == {"dpo-rlhf-v", "llava-1.5-7b"}
    usual = set(blocks) - {*VCD}
    assert all(names - {*VCD} == usual for names in named.values())
    text = " ".join((Path(__file__).parents[2] / "docs/reproduce.md").read_text().split())
    for said in (
        f"Each of the {len(named)} policies generates about {round(sum(answers[name] for name in usual), -3):,} greedy answers, "
        f"{answers['pope']:,} of them for POPE under eleven views",
        f"{sum(verdicts[n] for n in usual if n in verdicts):,} verdicts (HallusionBench {answers['hallusionbench']:,}, MMHal-Bench",
        f"another {sum(answers[name] for name in VCD):,} answers, each decoded under two views at once, and",
        f"decoded under two views at once, and {verdicts['mmhal-vcd']} verdicts.",
    ):
        assert said in text
