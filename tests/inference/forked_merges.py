"""Run groups of `bayesref` processes as forks of this one, so that torch is loaded once; a program for tests.

A line of JSON on the input, [{"words", "env", "log"}, ...], starts one process each; a line of their ids and, when all
have ended, a line of their exit codes come back (minus the signal, where one ended a process).
"""

import json
import os
import sys

import bayesref.cli.merge
from bayesref.cli.app import main


def child(words, env, log):
    """Become the program; never returns."""
    fd = os.open(log, os.O_CREAT | os.O_WRONLY)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.environ.update(env)
    code = 1
    try:
        main(words)
    except SystemExit as e:
        code = int(e.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve():
    for line in sys.stdin:
        pids = []
        for job in json.loads(line):
            pid = os.fork()
            if pid == 0:
                child(**job)
            pids.append(pid)
        print(json.dumps(pids), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids]), flush=True)


if __name__ == "__main__":
    assert bayesref.cli.merge  # loaded before the first fork
    serve()
