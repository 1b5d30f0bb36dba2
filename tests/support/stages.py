"""A stage for tests of the supervisor: `python -m tests.support.stages FOLDER NAME [BEHAVIOUR...]`.

It reports as real stages do and writes what happens to it into FOLDER/NAME.told. Behaviours: `exit=CODE` ends it at
once, `once=CODE` ends it at once when it is started for the first time, `mute` keeps it from reporting, `stubborn`
makes it ignore SIGTERM, `slow=SECONDS` lets it take its time to end, `waiting=N` has it report N things that wait,
which it does one by one once capture has stopped.
"""

import os
import signal
import sys
import time
from pathlib import Path

from tapdeck.storage import state


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    behaviour = dict(word.partition("=")[::2] for word in sys.argv[3:])
    told = folder / f"{name}.told"
    first = not told.exists()

    def tell(what: str) -> None:
        with told.open("a") as file:
            file.write(f"{time.monotonic_ns()} {os.getpid()} {what}\n")

    def stop(*_: object) -> None:
        time.sleep(float(behaviour.get("slow", 0)))
        tell("stopped")
        os._exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in behaviour else stop)
    signal.signal(signal.SIGHUP, lambda *_: tell("reload"))
    tell(f"started notify={os.environ.get('NOTIFY_SOCKET')} session={os.getsid(0) == os.getpid()}")
    if "exit" in behaviour or (first and "once" in behaviour):
        sys.exit(int(behaviour.get("exit") or behaviour["once"]))
    sys.stdout.write(f"{name} speaks\n")
    sys.stdout.flush()
    waiting = int(behaviour.get("waiting", 0))
    capture = folder / "capture.told"
    while True:
        if "mute" not in behaviour:
            state.write(folder, name, {"waiting": waiting})
        if waiting and capture.exists() and "stopped" in capture.read_text():
            waiting -= 1
            tell(f"did one, {waiting} wait")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
