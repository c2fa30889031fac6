"""Free memory by the kernel's files, on a machine and in a container with either version of control groups."""

from pathlib import Path

import pytest

from runtime.free_space import available_disk, available_memory, available_shared_memory, gib

MEMINFO = "MemTotal:  1000 kB\nMemAvailable:    500 kB\n"


def _machine(root: Path, **files: str) -> Path:
    """Write a root folder; in a name, __ stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_without_a_limit_is_what_the_kernel_estimates(tmp_path: Path) -> None:
    assert available_memory(_machine(tmp_path, proc__meminfo=MEMINFO)) == 500 * 1024


def test_a_system_without_linux_says_nothing(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "folder", "limit", "usage", "inactive"),
    [
        ("0::/a/b", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        (
            "4:memory:/a/b",
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
@pytest.mark.parametrize("group", ["a/b", "a", "."])
def test_the_limit_of_any_group_above_counts_less_what_is_used(
    tmp_path: Path, line: str, folder: str, limit: str, usage: str, inactive: str, group: str
) -> None:
    _machine(tmp_path, proc__meminfo=MEMINFO)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text(f"7:cpu:/elsewhere\n{line}\n")
    limited = tmp_path / folder / group
    limited.mkdir(parents=True)
    (limited / limit).write_text("100000\n")
    (limited / usage).write_text("30000\n")
    assert available_memory(tmp_path) == 70_000
    (limited / "memory.stat").write_text(f"anon 20000\n{inactive} 5000\n")
    assert available_memory(tmp_path) == 75_000
    (limited / usage).write_text("200000\n")
    assert available_memory(tmp_path) == 0
    (limited / limit).write_text("max\n")
    assert available_memory(tmp_path) == 500 * 1024


def test_this_machine_has_memory_and_disk(tmp_path: Path) -> None:
    memory = available_memory()
    assert memory is None or 0 < memory < 2**50
    assert available_disk(tmp_path / "not" / "yet") == pytest.approx(available_disk(tmp_path), rel=0.1)


def test_bytes_are_shown_in_gib() -> None:
    assert gib(3 * 2**29) == "1.50 GiB"


def test_shared_memory_is_limited_only_where_the_system_has_its_folder(tmp_path: Path) -> None:
    assert available_shared_memory(tmp_path / "none") is None
    assert available_shared_memory(tmp_path) == available_disk(tmp_path)
