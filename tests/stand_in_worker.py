"""A worker of the benchmarks' protocol that does nothing, or goes wrong as it is told.

python tests/stand_in_worker.py '{"rate": 100, "fault": "dies"}'
"""

import json
import sys
import time


def send(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    config = json.loads(sys.argv[1])
    rate, fault = config.get("rate", 100), config.get("fault")
    if fault == "refuses":
        send(error="nothing to work with")
        sys.exit(1)
    print("a library prints this")
    send(ready=True, versions={"stand-in": "1"}, compile_seconds=None)
    blocks = 0
    for line in iter(sys.stdin.readline, ""):
        command = line.strip()
        if command == "run":
            blocks += 1
            if fault == "dies" and blocks == 2:
                sys.exit("out of breath")
            if fault == "hangs":
                time.sleep(60)
            # The machine slows down from block to block, and everyone with it.
            send(**({} if fault == "babbles" else {"steps": rate, "seconds": blocks}))
        elif command == "train":
            if fault == "untrained":
                send(error="does not train from scratch")
                sys.exit(1)
            sizes = {"steps": config["total_steps"], "seconds": 2.0}
            send(**{"return": float(config["seed"]), **sizes})
        elif command == "finish":
            send(
                **{"return": 1.5, "peak_memory_bytes": 2**20, "steps": 9, "seconds": 1}
            )
            return


if __name__ == "__main__":
    main()
