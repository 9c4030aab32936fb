"""``dpvae explore RUN``: a page for exploring the latent spaces of a run."""

import webbrowser

from jsonargparse import Namespace

from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.explore import Explored, ExploreServer, explored

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Serve a run's page until Ctrl-C; returns the exit status."""
    saved = opened_run(options)
    data = saved.load_data(options.root, source=options.data)
    subject = Subject(saved, data, EvaluationConfig(seed=options.seed), progress=False)

    def encoded() -> Explored:
        print(f"{saved.folder.path}: encoding the training data", flush=True)
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
