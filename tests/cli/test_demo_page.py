"""The web page of a demo that stays is where it says."""

import asyncio
import os
import re
import signal

import aiohttp

from tests.cli.test_demo_kubectl import DEMO, Demo

PAGE = re.compile(r"the cluster as a web page: (http://127\.0\.0\.1:\d+/)\n")


async def test_the_page_is_told_of_at_the_start_and_below_the_picture() -> None:
    process = await asyncio.create_subprocess_exec(
        *DEMO, stdout=asyncio.subprocess.PIPE, env={"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    )
    demo = Demo(process)
    await demo.read_until(lambda text: text.count("Ctrl-C ends the demo."))
    first, below = PAGE.findall(demo.printed)[:2]
    assert first == below
    async with aiohttp.ClientSession() as http, http.get(first) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0
