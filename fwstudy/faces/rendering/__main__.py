"""Compile the renderer: ``python -m fwstudy.faces.rendering``, half a minute once.

Numba keeps the machine code beside the sources, so that processes that render at the same time need
not each compile it.
"""

from fwstudy.faces.rendering.identity import sample_identity
from fwstudy.faces.rendering.motion import State
from fwstudy.faces.rendering.render import Person, render
from fwstudy.faces.rendering.scene import sample_scene

if __name__ == "__main__":
    frontal = State(0.0, 0.0, 0.0, (0.0, 0.0), {})
    for seed in ((0, 0), (0, 1)):  # bald and with hair: arrays of two layouts, each compiled
        render(Person(sample_identity(seed)), sample_scene((0, 1)), frontal, 64)
