"""Reports of a user's mistakes, and the exit status of a script."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import (
    Interrupted,
    LostRank,
    UsageError,
    exhausted,
    first_line,
    printable,
    report_usage_errors,
    system_errors_explained,
)

SOURCE = Path(__file__).parents[1] / "runtime/errors.py"


def test_a_usage_error_becomes_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as caught, report_usage_errors("train.py"):
        raise UsageError("no such color")
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", "train.py: error: no such color\n")


def test_ctrl_c_becomes_status_130(capsys):
    with pytest.raises(SystemExit) as caught, report_usage_errors("train.py"):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "\ntrain.py: interrupted\n")


def test_a_closed_pipe_ends_the_command_quietly():
    code = (
        "from runtime.errors import report_usage_errors\n"
        "with report_usage_errors('search.py'):\n"
        "    for number in range(100_000): print(number, flush=True)"
    )
    words = f'{sys.executable} -c "{code}" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", words], cwd=SOURCE.parents[1], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n141\n", "")


def test_any_other_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), report_usage_errors("train.py"):
        _ = 1 / 0


def test_the_systems_error_about_a_file_becomes_one_line(capsys, tmp_path):
    for name, reason in ((f"{tmp_path}/{'x' * 5000}", "File name too long"), (f"{tmp_path}/none", "No such file")):
        with pytest.raises(SystemExit), report_usage_errors("train.py"):
            Path(name).read_bytes()
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"train.py: error: cannot use {tmp_path}/")
        assert reason in line
        assert len(line) < 500


def test_a_deleted_working_directory_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit), report_usage_errors("train.py"):
        Path("x").resolve()
    assert capsys.readouterr().err.startswith("train.py: error: the working directory no longer exists")


def test_a_system_error_without_a_file_keeps_its_traceback():
    with pytest.raises(OSError, match="no file"), report_usage_errors("train.py"):
        raise OSError(5, "no file")


def test_nothing_happens_without_an_error(capsys):
    with report_usage_errors("train.py"):
        pass
    assert capsys.readouterr() == ("", "")


def test_rank_0_prints_its_error_before_the_others(monkeypatch, capsys):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit), report_usage_errors("train.py"):
            raise UsageError("no such color")
    assert len(naps) == 1
    assert capsys.readouterr().err == "train.py: error: no such color\n" * 2


def test_an_error_of_one_process_alone_does_not_wait_for_rank_0(monkeypatch, capsys):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), report_usage_errors("train.py"):
        raise LostRank("rank 0 is dead")
    assert not naps
    assert capsys.readouterr().err == "train.py: error: rank 0 is dead\n"


def test_a_signal_becomes_128_plus_its_number(capsys):
    with pytest.raises(SystemExit) as caught, report_usage_errors("train.py"):
        raise Interrupted(15)
    assert caught.value.code == 143
    assert capsys.readouterr() == ("", "train.py: ended by SIGTERM\n")


@pytest.mark.parametrize(("error", "status"), [("UsageError('no such color')", 2), ("KeyboardInterrupt", 130)])
def test_a_script_ends_with_the_status_and_without_a_traceback(error, status):
    code = f"{SOURCE.read_text()}\nwith report_usage_errors('train.py'):\n    raise {error}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("a\nb"), "a"), (ValueError("\n a\nb"), "a"), (EOFError(), "EOFError")]
)
def test_an_errors_first_line_is_never_empty(error, line):
    assert first_line(error) == line


HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\nb\t\x7f\x9b\u202eé漢😀\udcff\\x1b"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\r\nb\t\x7f\x9b\u202eé漢😀\udcff\x1b"


def test_characters_that_steer_a_terminal_become_escapes_and_letters_stay():
    assert printable(HOSTILE) == SHOWN
    assert printable(SHOWN) == SHOWN  # so that it may be applied again


def test_an_error_names_hostile_files_as_escapes(capsys):
    with pytest.raises(SystemExit), report_usage_errors("train.py"):
        raise UsageError(f"no image {HOSTILE}")
    assert capsys.readouterr().err == f"train.py: error: no image {SHOWN}\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried "
                "to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "memory is exhausted, at an allocation of 8.00 GiB",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139 GiB"),
            "memory is exhausted, at an allocation of 20.00 GiB",
        ),
        (RuntimeError("Storage size calculation overflowed with sizes=[9, 9]"), "memory is exhausted"),
        (MemoryError(), "memory is exhausted"),
    ],
)
def test_exhausted_memory_is_one_line_with_the_remedy(capsys, error, reason):
    with pytest.raises(SystemExit) as caught, report_usage_errors("train.py", "use a smaller --batch-size"):
        raise error
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", f"train.py: error: {reason}: use a smaller --batch-size\n")


def test_another_runtime_error_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"), report_usage_errors("train.py"):
        raise RuntimeError("shapes differ")


def test_what_torch_raises_for_too_large_a_tensor_is_recognized():
    code = (
        "import resource, torch\n"
        "from runtime.errors import report_usage_errors\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "with report_usage_errors('train.py', 'use less'):\n"
        "    torch.zeros(2**30)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE.parents[1], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (
        2,
        "train.py: error: memory is exhausted, at an allocation of 4.00 GiB: use less\n",
    )


def test_an_interrupt_is_not_taken_for_the_end_of_memory():
    assert exhausted(KeyboardInterrupt("out of memory")) == ""


def test_a_loop_of_links_is_a_usage_error(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(UsageError, match=r"cannot use .*loop.*symbolic links"), system_errors_explained():
        (loop / "a.csv").resolve(strict=True)
