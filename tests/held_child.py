"""``papers.dpvae.child`` whose training stops at a step until a signal comes.

``python -m tests.held_child FOLDER STEP RUN COMMAND ...`` puts a file into FOLDER when training
has reached the step, so that no test depends on how fast it trains. From its start to its end the
process holds the pipe FOLDER/lives open.
"""

import os
import sys
from pathlib import Path

from papers.dpvae.child import main
from pyro_dpvae.training.trainer import Trainer
from tests.waiting import wait_until

if __name__ == "__main__":
    folder, held_at, run, *command = sys.argv[1:]
    lives = os.open(Path(folder, "lives"), os.O_WRONLY)
    follow = Trainer.after_step

    def held(trainer: Trainer, finite: bool) -> bool:
        """Wait at the step for a signal to the process."""
        if trainer.place.step == int(held_at):
            Path(folder, f"held-{os.getpid()}").touch()
            wait_until(lambda: trainer._interrupts.signal is not None)
        return follow(trainer, finite)

    Trainer.after_step = held  # type: ignore[method-assign]
    sys.exit(main(run, command))
