"""`segue plan` and `segue advise` beside a service that runs: what Envoy counted, and what git says."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request

import pytest

from segue.testing.site import Segue, Shop

REQUESTS = 40


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_what_is_advised_goes_by_the_requests_that_came_and_the_lines_that_changed(segue: Segue, shop: Shop) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=ana", "-c", "user.email=ana@example.com")
        subprocess.run(["git", *who, *arguments], cwd=shop.folder, check=True, capture_output=True)

    shop.write(process={"source": "."})
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "one")
    segue("deploy", cwd=shop.folder)
    first = segue.json("plan", "--version", "v2", cwd=shop.folder)
    for _ in range(REQUESTS):
        urllib.request.urlopen(shop.url, timeout=20).close()
    (shop.folder / "page.txt").write_text("one\ntwo\n")
    advice = segue.json("advise", cwd=shop.folder)
    plan = segue.json("plan", "--version", "v2", "--strategy", "canary", cwd=shop.folder)
    assert (first["traffic"]["requests"], plan["traffic"]["requests"]) == (0, REQUESTS)
    assert plan["traffic"]["open"] == 0
    assert advice["strategy"] == "rolling"
    assert advice["reasons"][0] == f"The change is small: 1 file, 2 lines since {advice['from']}."
    assert advice["room"]["each"] > 1 << 20
    assert advice["traffic"]["per_second"] > 0
    assert [one["problem"] for one in advice["strategies"]] == [None] * 4
