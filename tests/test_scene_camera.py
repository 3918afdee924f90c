"""A simulated world is seen from another process: pictures are drawn there, from where everything is."""

import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest
from arm_bench import READY

from uva_lightning.robot.camera import FreshCamera
from uva_lightning.robot.errors import CameraLost, RobotConfigError, RobotUnavailable
from uva_lightning.robot.mujoco_arm import MujocoArm
from uva_lightning.robot.mujoco_world import MujocoWorld
from uva_lightning.robot.scene_camera import SceneCamera
from uva_lightning.robot.scene_file import SceneReader, SceneWriter

pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, extra [sim]")


def test_places_cross_whole_while_they_are_written(tmp_path):
    writer, over = SceneWriter(tmp_path / "scene", 8), threading.Event()
    begun = threading.Event()
    reader = SceneReader(tmp_path / "scene", 8)
    with pytest.raises(CameraLost, match="no whole scene"):
        reader.read()

    def write():
        number = 0
        while not over.is_set():
            number += 1
            writer.write(float(number), np.full(8, float(number)))
            begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(5)
        seen = [reader.read() for _ in range(500)]
    finally:
        over.set()
        thread.join()
    assert all((places == moment).all() for moment, places in seen)


def test_a_scene_of_another_world_or_none_is_told(tmp_path):
    with pytest.raises(CameraLost, match="no scene at"):
        SceneReader(tmp_path / "scene", 8)
    SceneWriter(tmp_path / "scene", 8)
    with pytest.raises(CameraLost, match="has 80 bytes, expected 88; is the camera's model"):
        SceneReader(tmp_path / "scene", 9)
    with pytest.raises(RobotConfigError, match="cannot be written"):
        SceneWriter(tmp_path / "scene" / "below", 8)


def test_pictures_show_the_other_world_and_get_old_with_it(tmp_path):
    now = [time.monotonic()]
    world = MujocoWorld(clock=lambda: now[0], scene=tmp_path / "scene")
    world.reset(READY, cube=(0.42, 0.0))
    world.follow()
    drawn = SceneCamera(tmp_path / "scene", view="scene", width=160, height=120, rate_hz=50, clock=lambda: now[0])
    camera = FreshCamera(drawn)
    camera.age, camera.clock = 5.0, lambda: now[0]
    try:
        camera.connect(10.0)
    except RobotUnavailable as error:
        if "cannot draw" in str(error):
            pytest.skip(str(error))
        raise
    try:
        frames, times = camera.latest()
        assert times[-1] == pytest.approx(world.time)
        assert (frames[-1, ..., 0].astype(int) - frames[-1, ..., 1] > 60).any()  # the cube is red
        now[0] += 0.1
        world.follow()
        end = time.monotonic() + 10
        while (newest := camera.latest())[1][-1] == times[-1]:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert newest[1][-1] == pytest.approx(times[-1] + 0.1)
        assert (newest[0][-1] != frames[-1]).any()  # noise: nothing has moved
        now[0] += 6.0  # the world does not go on
        with pytest.raises(CameraLost, match="old"):
            camera.latest()
    finally:
        camera.close()


def test_without_a_world_there_is_no_camera(tmp_path):
    with pytest.raises(RobotUnavailable, match=r"sees no world at .*scene within 2 s \(There is no scene"):
        SceneCamera(tmp_path / "scene").connect(2.0)
    with pytest.raises(RobotConfigError, match="no camera 'top'"):
        SceneCamera(tmp_path / "scene", view="top")


def test_the_cube_is_put_back_whenever_the_arm_comes_home():
    world = MujocoWorld()
    arm, wide = MujocoArm(world, READY.tolist(), (0.3, -0.1), (0.4, 0.1), seed=3), world.model.gripper_width
    places = []
    for q, opening in ((READY, wide), (READY, wide), (READY + 0.1, wide), (READY, 0.0), (READY, wide)):
        arm.command(q, opening)
        places.append(tuple(world.cube()[:2]))
    assert places[0] == places[1] == places[2] == places[3] != places[4]
    assert all(0.3 <= x <= 0.4 and -0.1 <= y <= 0.1 for x, y in places)
    with pytest.raises(RobotConfigError, match="first corner below"):
        MujocoArm(world, None, (0.4, 0.0), (0.3, 0.1))
    with pytest.raises(RobotConfigError, match=r"home is \[0.0, 1.5\], expected an angle in rad for each of"):
        MujocoArm(world, [0.0, 1.5])
