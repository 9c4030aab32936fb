"""``dpvae explore RUN``: a page on which one walks through a run's latent spaces."""

import webbrowser
from collections.abc import Sequence

from pyro_dpvae.cli.opening import add_data, add_run, open_run
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.explore import Explored, ExploreServer, explored

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Serve a run's page until Ctrl-C; returns the exit status."""
    parser = CommandParser(
        prog="dpvae explore",
        description="Serve a page, to this machine alone, on which one moves a point through "
        "generation space and representation space and sees what it decodes to, the densities of "
        "prior and aggregate posterior, pockets and leaks. Ctrl-C ends it.",
    )
    add_run(parser)
    add_data(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the samples that are shown")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(list(arguments))
    saved = open_run(options)
    data = saved.data(options.root, source=options.data)
    subject = Subject(saved, data, EvaluationConfig(seed=options.seed), progress=False)

    def encoded() -> Explored:
        print(f"{saved.run.path}: encoding the training data", flush=True)
        return explored(subject)

    with ExploreServer(encoded, options.port) as server:
        print(f"{server.url} (Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
