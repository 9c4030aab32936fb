"""Answer requests of a benchmark in another interpreter, in JSON lines on stdin and stdout.

This and the other files of the folder run in environments of their own, without this library. A
request names a function and its arguments. The reply has the function's result and the processor
seconds that all threads of this process spent on it, or the text of an error.
"""

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping


def serve(functions: Mapping[str, Callable[..., object]]) -> None:
    """Answer until the benchmark closes stdin.

    Args:
        functions: by name; they take and return what JSON can express.
    """
    replies = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        function = functions[request["function"]]
        # What libraries print goes to stderr, where it is no reply.
        with contextlib.redirect_stdout(sys.stderr):
            start = time.process_time()
            try:
                reply = {"result": function(**request["arguments"])}
            except Exception:
                reply = {"error": traceback.format_exc()}
            reply["seconds"] = time.process_time() - start
        print(json.dumps(reply), file=replies, flush=True)
