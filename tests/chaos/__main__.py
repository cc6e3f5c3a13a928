"""The long run: ``python -m tests.chaos --steps 300 --seed 1`` (``make chaos ARGS="..."``).

Prints a line for each event ("!": something goes wrong) and what is wrong at the end; the last line of stdout is JSON
for programs. Exits with 1 where anything was over-committed or left behind; the logs of all processes are kept then.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

DEFAULT_STEPS = 300
_MAX_SEED = 10**6
_INTERRUPTED = 130


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Let anything go wrong, and see that nothing does.")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="events to let happen (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="draws the same events again (default: drawn, and printed)")
    arguments = parser.parse_args()
    seed = random.randrange(_MAX_SEED) if arguments.seed is None else arguments.seed
    os.environ["GRPC_VERBOSITY"] = "ERROR"  # it logs every plugin that goes away
    warnings.simplefilter("ignore", FutureWarning)  # pynvml's, about its own name
    logging.basicConfig(level=logging.ERROR)
    try:
        return asyncio.run(_run(steps=arguments.steps, seed=seed))
    except KeyboardInterrupt:
        return _INTERRUPTED


async def _run(*, steps: int, seed: int) -> int:
    from tests.chaos.ending import end  # gRPC reads its environment when it is imported
    from tests.chaos.script import Script
    from tests.chaos.world import World

    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    began, faults, refused = time.monotonic(), 0, set()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    say(f"seed {seed}, {steps} steps; logs in {directory}")
    world = World(directory, seed=seed)
    can_jump = not world.server.clock.missing
    if not can_jump:
        say(f"Redis' clock cannot jump here: {world.server.clock.missing}")
    script = Script(seed, replicas=len(world.replicas), nodes=world.node_names, can_jump=can_jump)
    try:
        await world.start()
        for step in script.steps(steps):
            faults += step.event.is_fault
            say(f"{'!' if step.event.is_fault else ' '} {step.event.text}")
            await step.event.happen(world)
            await asyncio.sleep(step.pause_seconds)
            world.truth.check(when=step.event.text)
            for uid, why in (await world.refused()).items():
                if uid not in refused:
                    say(f"  refused: {why}")
                refused.add(uid)
        say("everything is put right, and then deleted")
        leaks = await end(world)
    except Exception as exc:
        traceback.print_exc(file=sys.stdout)
        leaks = [f"the run broke off: {type(exc).__name__}: {exc}"]
    finally:
        await world.stop()
    conflicts = sum((replica.conflicts() for replica in world.replicas), Counter())
    say(f"the end; pods that ran: {len(world.truth.started)}, that their node refused: {len(refused)}")
    say(f"binds that somebody else was faster than: {dict(conflicts)}")
    overcommits = world.truth.overcommits()
    for problem in [*overcommits, *leaks]:
        say(f"WRONG: {problem}")
    failed = bool(overcommits or leaks)
    if failed:
        say(f"the logs are kept in {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    result = {
        "placed": len(world.truth.started),
        "faults": faults,
        "conflicts": conflicts.total(),
        "overcommits": len(overcommits),
        "leaks": len(leaks),
        "seed": seed,
        "steps": steps,
    }
    print(json.dumps(result), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
