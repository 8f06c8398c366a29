"""Compiled programs are kept across processes, and a machine without a compiler says so."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradopt.engines.native import compiler
from gradopt.engines.native.compiler import NoCompiler, find_compiler
from gradopt.engines.purity import Refusal
from tests.engines.printed import natively

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

SOURCE = "long answer(void) { return 42; }\n"

SCRIPT = """
import sys, torch
from tests.engines.printed import natively
print(natively(lambda x: x * 3 + 1, torch.arange(20.0)).sum().item())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "gradopt" / "native"


def test_a_second_process_compiles_nothing(cache, tmp_path, monkeypatch):
    def run(**changed: str) -> str:
        import os

        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={**os.environ, **changed}
        )
        return done.stdout

    first = run()
    (made,) = cache.glob("*.so")
    written = made.stat().st_mtime_ns
    assert run() == first == "590.0\n"
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [written], "nothing new, nothing left behind"


def test_a_damaged_object_is_made_again(cache):
    find_compiler().load(SOURCE)
    (made,) = cache.glob("*.so")
    made.unlink()
    made.write_bytes(b"no object")
    assert find_compiler().load(SOURCE).answer() == 42


def test_other_flags_or_sources_are_other_objects(cache, monkeypatch):
    find_compiler().load(SOURCE)
    find_compiler().load(SOURCE.replace("42", "43"))
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-O1"))
    find_compiler().load(SOURCE)
    assert len(list(cache.glob("*.so"))) == 3


def test_without_a_compiler_a_program_is_refused_with_the_reason(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        Refusal, match=r"no C compiler is found \(tried gcc, cc, clang\); install gcc, or name one in CC"
    ):
        natively(torch.exp, torch.zeros(3))
    monkeypatch.setenv("CC", "nonesuch")
    with pytest.raises(NoCompiler, match="tried nonesuch"):
        find_compiler()


def test_a_compiler_that_fails_is_named(cache, monkeypatch):
    with pytest.raises(NoCompiler, match=r"gcc refuses the program: .*error"):
        find_compiler().load("no C")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(NoCompiler, match="false refuses the program"):
        find_compiler().load(SOURCE)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "gradopt").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = find_compiler()
    assert found.load(SOURCE).answer() == 42
    assert tmp_path not in found.directory.parents
