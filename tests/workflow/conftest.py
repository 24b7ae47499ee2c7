"""Real Snakemake runs by command line, in a folder of their own."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Workflow:
    """A working directory with the project's Snakefile."""

    folder: Path

    def run(self, *arguments: str, config: str = "config.yaml", check: bool = True) -> subprocess.CompletedProcess[str]:
        """`snakemake --cores 2 …`; output as text, both streams together."""
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)]
        command += ["--configfile", str(self.folder / config), "--cores", "2", *arguments]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake ended with {done.returncode}\n{done.stdout}")
        return done

    def planned(self, *arguments: str, config: str = "config.yaml") -> set[str]:
        """Names of the rules that a run would execute now."""
        output = self.run("--dry-run", *arguments, config=config).stdout
        return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all", "data", "adapters"}

    def edited(self, path: str, value: object, name: str = "edited.yaml") -> str:
        """Writes the config again with one key changed, and returns the new file's name."""
        config = yaml.safe_load((self.folder / "config.yaml").read_text())
        *outer, last = path.split(".")
        place = config
        for key in outer:
            place = place[key]
        place[last] = value
        (self.folder / name).write_text(yaml.safe_dump(config, sort_keys=False))
        return name


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A fresh working directory with the bundled model."""
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    return Workflow(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The demo's chain, made small, after one complete run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "resources").symlink_to(ROOT / "resources")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["datasets"]["shapes"] |= {"train": {"grounding": 48}, "test": {"grounding": 24}}
    config["samplings"]["n20"]["n"] = 6
    config["selections"]["ranked"] |= {"list_size": 4, "min_margin": 0.1}
    config["benchmarks"]["shapes-test"] |= {"n": 4, "resamples": 99}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    workflow = Workflow(folder)
    workflow.run()
    return workflow
