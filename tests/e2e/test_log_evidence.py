"""The case of the textbook, for real: ten instances, one is updated first, its log fills, and HTTP answers 200."""

from __future__ import annotations

import re

from segue.testing.load import Probe
from segue.testing.site import Segue, Shop, tiny_app

NOISY = """\
import subprocess, sys, time
app = subprocess.Popen(sys.argv[1:])
time.sleep(1)
while app.poll() is None:
    print("Traceback (most recent call last):", flush=True)
    print("KeyError: 'price'", flush=True)
    time.sleep(0.2)
"""


def test_tracebacks_in_the_log_of_the_first_of_ten_stop_the_rollout(segue: Segue, shop: Shop) -> None:
    def write(command: str) -> None:
        shop.write(
            replicas=10,
            process={"source": ".", "command": command},
            strategy={"rolling": {"first_judge": "30s", "judge": "1s"}},
            evidence=[{"logs": {"match": "Traceback|ERROR"}}],
            stop={"grace": "1s"},
        )

    write(f"{tiny_app()} {{port}} {{version}}")
    shop.deploy("v1")
    (shop.folder / "noisy.py").write_text(NOISY)
    write(f"python3 -u noisy.py {tiny_app()} {{port}} {{version}}")
    probe = Probe(shop.url, connections=64, rate=100)
    try:
        probe.more(50)
        refused = shop.deploy("v2", expect=1)
        probe.more(50)
        seen = probe.finish()
    finally:
        probe.kill()
    assert re.search(
        r"Reason: shop-v2\.1-1 wrote \d+ lines that match `Traceback\|ERROR`, v1's 10 instances 0 in the same time: "
        r"Traceback \(most recent call last\):",
        refused.stdout,
    ), refused.stdout
    assert "shop-v2.1-1 | Traceback (most recent call last):" in refused.stdout
    assert "shop-v2.1-2" not in refused.stdout, "it stopped at 1 of 10"
    assert seen.lost == ()
    assert {200} == set(seen.by_status)
    status = shop.status()
    assert (status["state"], status["stable"], status["versions"]["v1"]["size"]) == ("steady", "v1", 10)
