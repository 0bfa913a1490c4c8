"""A network whose cached layers are computed on workers by a stand-in engine, slowly, and a picture that ends them.

A worker imports this module as it unpickles `DISTURBED`, and nothing else here patches it: so it is for workers only.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass, replace

from tiny import TINY, StandIn

from featurize.backbone.architecture import KerasFile
from featurize.pixels import images
from vggft.workspace import on_workers

POISON = b"this picture ends its reader"
DEADLY = "VGGFT_TEST_DEADLY"  # set: the engine ends its process
PAUSE = "VGGFT_TEST_PAUSE"  # seconds before each batch


@dataclass(frozen=True)
class _OfThisModule(KerasFile):
    @property
    def path(self):
        return TINY.keras_file.path


DISTURBED = replace(TINY, keras_file=_OfThisModule(TINY.keras_file.url, ""))


class Slow(StandIn):
    def __call__(self, *arguments):
        if DEADLY in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get(PAUSE, "0")))
        return super().__call__(*arguments)


def _disturb():
    decode = images.decode_resized

    def poisoned(data, **settings):
        if POISON in data:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(data, **settings)

    images.decode_resized = poisoned
    on_workers.start_engine = lambda architecture, *arguments: Slow(architecture)


if any("processes.serve()" in word for word in sys.orig_argv):
    _disturb()
