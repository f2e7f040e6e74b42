"""Programs that stand in for a cloud's: first on PATH, they write down how they were called and answer as told.

programs = Programs(tmp_path, "gcloud")
programs.answer("queued-resources list", "run ACTIVE")       # for calls with these words; later rows first
done = run_script("tpu_vm.sh", "status", "a", programs=programs)
programs.calls() == [["gcloud", ...], ...]
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"

STANDIN = """#!{python} -IS
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with open(folder / "calls.jsonl", "a") as calls:
    words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
    given = "" if sys.stdin is None or words[0] not in ("kubectl", "sbatch") else sys.stdin.read()
    calls.write(json.dumps([words, given]) + "\\n")
line, code, out = " ".join(words), 0, ""
for path in sorted(folder.glob("answer-*.json"), reverse=True):
    row = json.loads(path.read_text())
    if row["words"] in line:
        code, out = row["answers"][0]
        if len(row["answers"]) > 1:
            path.write_text(json.dumps(row | {{"answers": row["answers"][1:]}}))
        break
print(out, end="")
sys.exit(code)
"""


class Programs:
    """Stand-ins of these names in a folder, `sleep` that does not among them."""

    def __init__(self, folder: Path, *names: str):
        self.folder = folder / "standins"
        self.folder.mkdir()
        for name in names:
            self.write(name, STANDIN.format(python=sys.executable, folder=str(self.folder)))
        self.write("sleep", "#!/bin/sh\n")
        self.answers = 0

    def write(self, name: str, text: str) -> None:
        """Puts a program there."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, words: str, *answers: str | int | tuple[int, str]) -> None:
        """Calls whose words, joined, hold these get an exit code, an output or both; the last answer for ever."""
        rows = [
            each if isinstance(each, tuple) else (each, "") if isinstance(each, int) else (0, each) for each in answers
        ]
        row = {"words": words, "answers": [(code, f"{out}\n" if out else "") for code, out in rows]}
        (self.folder / f"answer-{self.answers:03d}.json").write_text(json.dumps(row))
        self.answers += 1

    def _lines(self) -> list[tuple[list[str], str]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self, *but: str) -> list[list[str]]:
        """Returns the words of each call, in order, without those that hold one of `but`."""
        return [words for words, _ in self._lines() if not any(each in " ".join(words) for each in but)]

    def given(self) -> list[str]:
        """Returns what each call of kubectl and sbatch read."""
        return [text for _, text in self._lines()]


def run_script(
    name: str, *arguments: str, programs: Programs | None = None, folder: Path = LAUNCH, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a script of launch/. The real gcloud, where there is one, finds no account in any case."""
    own = {"CLOUDSDK_CONFIG": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    path = f"{programs.folder}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    return subprocess.run(
        [str(folder / name), *arguments],
        env=os.environ | own | variables | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
