"""Programs that fill their folder, in a file system of limited size and in a folder on disk."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.stages.sandbox import trees
from gristmill.stages.sandbox.runner import Kernel, Limits, Outcome, Sandbox

LIMITS = Limits(cpu_s=20, wall_s=60, memory_mb=512, file_mb=4, scratch_mb=8, scratch_files=300, num_files=64)
FORMS = {"in memory": Kernel(), "on disk": Kernel(namespaces=False)}
MB = "b = bytes(1 << 20)\n"

# Each exceeds a limit in its own way. All but the last few go on for ever if nothing stops them.
FILLS = {
    "large files": MB + "for i in range(10**6): open(str(i), 'wb').write(b)",
    "empty files": "for i in range(80000): open(str(i), 'w').close()",
    "files, errors ignored": MB + (
        "i = 0\nwhile True:\n    i += 1\n    try: open(str(i), 'wb').write(b)\n    except OSError: pass"
    ),
    "folders side by side": "import os\nfor i in range(80000): os.mkdir(str(i))",
    "folders in folders": "import os, time\nfor i in range(1500): os.mkdir('a'); os.chdir('a')\ntime.sleep(1000)",
    "long names": "import os, time\nfor i in range(1500): os.mkdir('a' * 255); os.chdir('a' * 255)\ntime.sleep(1000)",
    "files beyond the longest path": MB + (
        "import os, time\nfor i in range(40):\n    os.mkdir('a' * 250); os.chdir('a' * 250)\n"
        "    open('b', 'wb').write(b)\ntime.sleep(1000)"
    ),
    "links": "import os\nfor i in range(80000): os.symlink('a' * 3000, str(i))",
    "hard links": "import os\nopen('a', 'w').close()\nfor i in range(80000): os.link('a', str(i))",
    "deleted files that are open": MB + (
        "import os, time\nfiles = []\nfor i in range(50):\n    files.append(open('a', 'wb')); os.remove('a')\n"
        "    files[-1].write(b); files[-1].flush()\ntime.sleep(1000)"
    ),
    "nameless files": MB + (
        "import os, time\nfor i in range(50):\n    end = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)\n"
        "    os.write(end, b)\ntime.sleep(1000)"
    ),
    "deleted files of a process whose first thread has ended": MB + (
        "import ctypes, os, threading, time\ndef fill():\n    time.sleep(0.05)\n    files = []\n"
        "    for i in range(50):\n        files.append(open('a', 'wb', 0)); os.remove('a')\n"
        "        try: files[-1].write(b)\n        except OSError: pass\n    time.sleep(1000)\n"
        "threading.Thread(target=fill).start(); ctypes.CDLL(None).syscall(60, 0)"
    ),
    "deleted folders": MB + (
        "import os, time\nfiles = []\nfor i in range(50):\n    os.mkdir('d'); files.append(open('d/a', 'wb'))\n"
        "    os.remove('d/a'); os.rmdir('d'); files[-1].write(b); files[-1].flush()\ntime.sleep(1000)"
    ),
    "folders without rights": MB + (
        "import os, time\nos.mkdir('d', 0o300); os.chdir('d'); os.mkdir('e', 0)\n"
        "for i in range(50): open(str(i), 'wb').write(b)\ntime.sleep(1000)"
    ),
    "files that move": MB + (
        "import os, time\nos.mkdir('d')\nfor i in range(50):\n    open('a', 'wb').write(b); os.rename('a', f'd/{i}')\n"
        "time.sleep(1000)"
    ),
    "files left behind": MB + "for i in range(9): open(str(i), 'wb').write(b)",
    "an own error": "raise OSError(28, 'No space left on device')",
}  # fmt: skip


@pytest.fixture(scope="module", params=FORMS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    sandbox = Sandbox(1, kernel=FORMS[request.param])
    jail = sandbox._jails.get()
    assert jail is not None
    is_private = jail.is_private
    sandbox._jails.put(jail)
    if request.param == "in memory" and not is_private:
        pytest.skip("no mount namespace can be had here")
    assert is_private == (request.param == "in memory")
    yield sandbox
    folder = sandbox._folder.path
    sandbox.close()
    assert not os.path.exists(folder)


def outcome(sandbox: Sandbox, program: str) -> Outcome:
    return sandbox.run([(program, "")], LIMITS)[0]


@pytest.mark.parametrize("name", FILLS)
def test_what_fills_its_folder_is_stopped(name: str, sandbox: Sandbox) -> None:
    result = outcome(sandbox, FILLS[name])
    assert (result.verdict, result.exit, result.test, result.detail) == ("files", None, None, None)
    assert result.wall_s < 50
    left = [path for path in Path(sandbox._folder.path).rglob("*") if path.name != "scratch"]
    assert len(left) == 1, "only the folder of the jail"
    assert outcome(sandbox, "import os; assert os.listdir() == []").verdict == "passed", "the jail lives"


def test_what_stays_below_the_limits_passes(sandbox: Sandbox) -> None:
    program = "for i in range(7): open(str(i), 'wb').write(bytes(1 << 20))\nfor i in range(200): open(f'a{i}', 'w')"
    assert outcome(sandbox, program).verdict == "passed"
    program = MB + "for i in range(100):\n    for j in range(5): open(str(j), 'wb').write(b)"
    assert outcome(sandbox, program).verdict == "passed", "files are counted once"


def test_deleted_files_that_are_mapped_are_stopped(sandbox: Sandbox) -> None:
    result = outcome(
        sandbox,
        "import mmap, os, time\nmaps = []\nfor i in range(40):\n    a = open('a', 'w+b'); a.truncate(1 << 20)\n"
        "    maps.append(mmap.mmap(a.fileno(), 1 << 20)); a.close(); os.remove('a')\n"
        "    maps[-1][:] = bytes(1 << 20)\ntime.sleep(1000)",
    )
    # In memory the kernel may have no page left for the map before the count, and says so by SIGBUS.
    is_out_of_pages = sandbox._kernel.namespaces and result.verdict == "crashed" and result.signal == signal.SIGBUS
    assert result.verdict == "files" or is_out_of_pages


def test_threads_are_bounded(sandbox: Sandbox) -> None:
    program = "import threading, time\nthreading.stack_size(32768)\nwhile True:\n    " + (
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
    )
    assert outcome(sandbox, program).verdict in ("memory", "error"), "too many threads, or no memory for more"


def test_the_kernel_bounds_a_file_system_in_memory(sandbox: Sandbox) -> None:
    """What a program writes between two counts is bounded too: by the kernel in memory, not on disk."""
    program = (
        "import os\nn = 0\ntry:\n    for i in range(40):\n        n += os.write("
        "os.open('.', os.O_TMPFILE | os.O_RDWR), bytes(1 << 20))\nfinally: print(n)"
    )
    result = outcome(sandbox, program)
    if sandbox._kernel.namespaces:
        assert result.verdict == "files" and (not result.output or int(result.output) <= 9 << 20)


def test_any_tree_is_counted_and_deleted() -> None:
    folder = tempfile.mkdtemp()
    end = os.open(folder, os.O_RDONLY)
    for level in range(1100):
        os.mkdir("a" * 200, dir_fd=end)
        inner = os.open("a" * 200, os.O_RDONLY, dir_fd=end)
        os.close(end)
        end = inner
        if level % 50 == 49:
            os.close(os.open("file", os.O_CREAT, dir_fd=end))
            os.symlink("/", "link", dir_fd=end)
    os.close(end)
    os.makedirs(folder + "/b/c")
    os.chmod(folder + "/b/c", 0)
    os.chmod(folder + "/b", 0)
    assert trees.usage(folder, 1 << 40, 10**6, set())[1] == 1100 + 44 + 2
    assert trees.usage(folder, 1 << 40, 50, set())[1] == 51
    trees.delete(folder)
    assert not os.path.exists(folder) and os.path.isdir("/")


def test_a_count_and_a_deletion_follow_no_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("a" * 10000)
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "other")
    assert trees.usage(str(tmp_path / "folder"), 1 << 40, 10, set())[1] == 1
    trees.delete(str(tmp_path / "folder"))
    assert (tmp_path / "other" / "file").read_text() == "a" * 10000
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for call in (lambda path: trees.usage(path, 1, 1, set()), trees.delete):
        with pytest.raises(OSError):
            call(str(tmp_path / "link"))
    assert (tmp_path / "other" / "file").exists()
