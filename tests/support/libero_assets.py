"""Stand-ins for the meshes and textures of LIBERO's first object task: boxes in flat colours."""

from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

FACES = ((1, 2, 4), (1, 4, 3), (5, 7, 8), (5, 8, 6), (1, 5, 6), (1, 6, 2))
FACES += ((3, 4, 8), (3, 8, 7), (1, 3, 7), (1, 7, 5), (2, 6, 8), (2, 8, 4))
COLOURS = {
    "alphabet_soup": (200, 40, 40),
    "salad_dressing": (40, 160, 40),
    "cream_cheese": (60, 60, 200),
    "milk": (60, 160, 160),
    "tomato_sauce": (180, 30, 90),
    "butter": (180, 150, 40),
}
FLOOR = """<mujoco model="floor">
<asset>
<texture type="skybox" builtin="flat" rgb1=".3 .4 .5" width="8" height="48"/>
<texture file="../textures/light-gray-floor-tile.png" type="2d" name="texplane"/>
<material name="floorplane" texture="texplane"/>
<texture file="../textures/light-gray-plaster.png" type="2d" name="tex-wall"/>
<material name="walls_mat" texture="tex-wall"/>
</asset>
<worldbody>
<geom name="floor" type="plane" size="3 3 .125" material="floorplane" condim="3"/>
<body name="floor"/>
<light pos="1 1 1.5" dir="-0.2 -0.2 -1" directional="true" castshadow="false"/>
<camera mode="fixed" name="frontview" pos="1.6 0 1.45" quat="0.56 0.43 0.43 0.56"/>
<camera mode="fixed" name="agentview" pos="0.5 0 1.35" quat="0.653 0.271 0.271 0.653"/>
</worldbody></mujoco>"""
THING = """<mujoco model="{name}">
<asset><mesh file="{name}.obj" name="{name}_mesh"/><texture file="texture.png" name="tex-{name}" type="2d"/>
<material name="{name}" texture="tex-{name}"/></asset>
<worldbody><body><body name="object">
<geom type="mesh" mesh="{name}_mesh" material="{name}" conaffinity="0" contype="0" group="1"/>
<geom type="box" size="{x} {y} {z}" group="0" density="100"/>
{more}</body>
<site rgba="0 0 0 0" size="0.005" pos="0 0 -{z}" name="bottom_site"/>
<site rgba="0 0 0 0" size="0.005" pos="0 0 {z}" name="top_site"/>
<site rgba="0 0 0 0" size="0.005" pos="{x} {y} 0" name="horizontal_radius_site"/>
</body></worldbody></mujoco>"""
INSIDE = '<site rgba="0 0 0 0" type="box" size="0.09 0.07 0.05" pos="0 0 0.05" quat="1 0 0 0" name="contain_region"/>'


def write_assets(folder: Path) -> Path:
    """Write the folder ``assets`` for ``libero_object/0``."""
    for name, grey in (("light-gray-floor-tile", 110), ("light-gray-plaster", 130)):
        flat(folder / "textures" / f"{name}.png", (grey, grey, grey))
    (folder / "scenes").mkdir()
    (folder / "scenes" / "libero_floor_base_style.xml").write_text(FLOOR)
    for name, colour in COLOURS.items():
        thing(folder / "stable_hope_objects" / name, (0.03, 0.02, 0.03), colour)
    thing(folder / "stable_scanned_objects" / "basket", (0.1, 0.08, 0.02), (140, 100, 60), INSIDE)
    return folder


def thing(folder: Path, half: tuple[float, float, float], colour: tuple[int, int, int], more: str = "") -> None:
    """Write a box with half sides in m."""
    flat(folder / "texture.png", colour)
    corners = product(*((-side, side) for side in half))
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + ["f {} {} {}".format(*face) for face in FACES]
    (folder / f"{folder.name}.obj").write_text("\n".join(lines) + "\n")
    x, y, z = half
    (folder / f"{folder.name}.xml").write_text(THING.format(name=folder.name, x=x, y=y, z=z, more=more))


def flat(path: Path, colour: tuple[int, int, int]) -> None:
    """Write a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(path)
