"""One control plane a home, and none where that cannot be made sure."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.engine.lock import Lock
from segue.errors import Unreachable


def test_a_home_has_one_control_plane(room: Path) -> None:
    first = Lock(room)
    with pytest.raises(Unreachable, match="another control plane"):
        Lock(room)
    first.release()
    Lock(room).release()


@pytest.mark.parametrize("kind", ["nfs4", "cifs"])
def test_a_home_on_a_network_file_system_is_refused(room: Path, kind: str) -> None:
    mounts = room / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/home {room} {kind} rw 0 0\n")
    with pytest.raises(Unreachable, match=f"network file system \\({kind}\\)"):
        Lock(room, mounts)
    mounts.write_text("/dev/vda / ext4 rw 0 0\n")
    Lock(room, mounts).release()
