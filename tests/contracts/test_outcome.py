"""What a run says last, and that Snakemake calls it."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from perceptune.planning.outcome import Telling, failure, result
from PIL import Image

ROOT = Path(__file__).parents[2]


def failed(*logs: Path) -> Any:
    jobs = [SimpleNamespace(log=[str(log)], rule=SimpleNamespace(name="perceptune_import_examples")) for log in logs]
    return SimpleNamespace(scheduler=SimpleNamespace(failed=jobs))


@pytest.mark.parametrize(
    ("final", "log", "expected"),
    [
        ("error: a\n  b\nhint: c\n(not retried: same)\n", "x", "error: a\n  b\nhint: c"),
        ("Traceback\n  File\nKeyError: 'x'\n\n(not retried: same)\n", "x", "error: KeyError: 'x'\nlog: {log}"),
        ("Traceback\n  File\na.b.SomeError: one\n\ntwo\n\n(not retried: same)\n", "x", "error: a.b.SomeError: one\nlog: {log}"),
        ("Traceback\n  File\nKeyError: 'x'\nerror: `a.py`, line 2, in `score`: KeyError: 'x'\n(not retried: same)\n", "x", "error: `a.py`, line 2, in `score`: KeyError: 'x'\nlog: {log}"),
        (None, "loading\nTraceback\nerror: out of memory in attempt 1: a\nerror: out of memory in attempt 3: b\n", "error: out of memory in attempt 3: b"),
        (None, "loading\n50%", "error: a job ended without a message, perhaps killed for its memory; log: {log}"),
        (None, None, ""),
        ("", "error: full disk\n", "error: full disk"),
        ("\n", None, ""),
        ("error: \x1b[31mred\n(not retried: same)\n", "x", "error: \\x1b[31mred"),
    ],
)  # fmt: skip
def test_the_message_of_a_failed_job(tmp_path: Path, final: str | None, log: str | None, expected: str) -> None:
    file = tmp_path / "one.log"
    for path, text in ((file, log), (tmp_path / "one.log.final", final)):
        if text is not None:
            path.write_text(text)
    assert failure(failed(file, file), []) == expected.format(log=file)


def test_jobs_of_the_snakefile_around_a_module_are_its_own_matter(tmp_path: Path) -> None:
    (tmp_path / "one.log").write_text("error: theirs\n")
    workflow = failed(tmp_path / "one.log")
    workflow.scheduler.failed[0].rule.name = "mine"
    assert failure(workflow, []) == ""


def test_jobs_of_a_group_are_looked_into_and_many_messages_are_counted(tmp_path: Path) -> None:
    logs = [tmp_path / f"{n}.log" for n in range(7)]
    for log in logs:
        log.write_text(f"error: {log.stem}\n")
    workflow = failed(*logs[:6])
    workflow.scheduler.failed = [SimpleNamespace(jobs=workflow.scheduler.failed), *failed(logs[6]).scheduler.failed]
    assert failure(workflow, []) == "\n".join([*(f"error: {n}" for n in range(5)), "and 2 more"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Terminating processes on user request, this might take some time.", "Stopped. The same command goes on from there."),
        ("Will exit after finishing currently running jobs (scheduler).", "Stopped. The same command goes on from there."),
        ("sbatch: error", ""),
    ],
)  # fmt: skip
def test_a_stopped_run_says_how_to_go_on(tmp_path: Path, said: str, expected: str) -> None:
    (tmp_path / "snakemake.log").write_text(f"Execute 1 jobs...\n{said}\n")
    assert failure(failed(), [str(tmp_path / "snakemake.log"), str(tmp_path / "missing.log")]) == expected


def test_a_stopped_run_still_shows_what_failed_before(tmp_path: Path) -> None:
    log = tmp_path / "snakemake.log"
    log.write_text("Terminating processes on user request, this might take some time.\n")
    (tmp_path / "one.log").write_text("error: wrong\n")
    shown = "error: wrong\nStopped. The same command goes on from there."
    assert failure(failed(tmp_path / "one.log"), [str(log)]) == shown


def test_errors_that_come_last_anyway_are_not_logged() -> None:
    ended = "RuleException:\nCalledProcessError in file \"data.smk\", line 45:\nCommand 'python /tmp/x.run_stage.py' returned non-zero exit status 1."
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("test_outcome")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.addFilter(Telling())
    for level, text in [
        (logging.ERROR, ended),
        (logging.ERROR, "WorkflowError: another"),
        (logging.INFO, "Terminating processes on user request, this might take some time."),
        (logging.ERROR, "Error in rule import_examples"),
        (logging.INFO, "Complete log"),
    ]:
        logger.log(level, text)
    assert [text.partition(",")[0] for text in said] == [
        "WorkflowError: another",
        "Terminating processes on user request",
        "Complete log",
    ]


def finished(*rules: str, quiet: tuple[str, ...] = (), workdir: str | None = None) -> Any:
    jobs = [SimpleNamespace(rule=SimpleNamespace(name=rule)) for rule in rules]
    return SimpleNamespace(
        dag=SimpleNamespace(needrun_jobs=lambda exclude_finished: jobs),
        output_settings=SimpleNamespace(quiet={SimpleNamespace(name=name) for name in ()} or [SimpleNamespace(name=n) for n in quiet]),
        overwrite_workdir=workdir,
    )  # fmt: skip


def test_the_result_is_shown_only_by_the_run_that_made_it(tmp_path: Path) -> None:
    table = tmp_path / "result.txt"
    assert result(finished("write_report"), str(table), "results/report.html") == ""
    table.write_text("a table\n\n")
    shown = "a table\nReport: results/report.html"
    assert result(finished("import_examples", "write_report"), str(table), "results/report.html") == shown
    assert result(finished("perceptune_write_report"), str(table), "results/report.html") == shown
    assert result(finished("write_report", quiet=("RULES",)), str(table), "results/report.html") == shown
    assert result(finished("write_report", quiet=("ALL",)), str(table), "results/report.html") == ""
    assert result(finished("import_examples"), str(table), "results/report.html") == ""
    assert str(Path.cwd() / "r.html") in result(finished("write_report", workdir="elsewhere"), str(table), "r.html")


def test_a_run_without_a_result_ends_with_its_warnings_about_leakage(tmp_path: Path) -> None:
    workflow = finished("find_leakage", "import_examples", "find_leakage")
    for number, job in enumerate(workflow.dag.needrun_jobs(exclude_finished=False)):
        job.log = [str(tmp_path / f"{number}.log")]
    (tmp_path / "0.log").write_text("loading\nwarning: one\nwarning: two\n")
    (tmp_path / "1.log").write_text("warning: of the import\n")
    assert result(workflow, str(tmp_path / "result.txt"), "r.html") == "warning: one\nwarning: two"
    workflow.output_settings.quiet = [SimpleNamespace(name="ALL")]
    assert result(workflow, str(tmp_path / "result.txt"), "r.html") == ""


def snakemake(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """(exit status, lines of both streams) of the project's workflow in a folder."""
    done = subprocess.run(
        ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "my.yaml", "--cores", "1", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.rstrip().splitlines()


@pytest.mark.slow
def test_snakemake_says_what_is_wrong_last(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"]["tiny"]["path"] = str(ROOT / "resources/tiny-llava/model")
    config["datasets"]["shapes"] = {"kind": "jsonl", "path": "own.jsonl"}
    text = yaml.safe_dump(config)
    (tmp_path / "my.yaml").write_text(text)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    row = '{{"image": "a.png", "question": "{}", "task": "grounding", "box": [4, 8, 30, 40], "split": "{}"}}\n'
    rows = row.format("one", "train") + row.format("two", "test")
    (tmp_path / "own.jsonl").write_text(rows + '{"image": "b.png"}\n')
    status, lines = snakemake(tmp_path, "data")
    assert status == 1
    assert [line for line in lines if line.startswith("error: ")] == [lines[-3]]
    assert lines[-3].startswith("error: 1 of 3 rows cannot be used")
    assert lines[-1].startswith("hint: ")
    assert "import_examples shapes failed" in lines
    assert not any("CalledProcessError" in line for line in lines)
    (tmp_path / "own.jsonl").write_text(rows)
    assert snakemake(tmp_path, "data")[0] == 0

    config["models"]["tiny"]["path"] = "model"
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "model/model.safetensors").touch()
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    status, lines = snakemake(tmp_path, "--dry-run")
    assert status == 1
    assert lines[-2] == "error: model file `model/model.safetensors`: 0 bytes, expected weights in safetensors format"
    assert snakemake(tmp_path, "--dry-run", "data")[0] == 0  # needs no model

    (tmp_path / "my.yaml").write_text(text + text.split("\n", 1)[0] + "\n")
    status, lines = snakemake(tmp_path, "--dry-run")
    assert status == 1
    assert any("is defined more than once, in lines 1 and " in line for line in lines)
