"""What the progress of a training shows."""

import io

from vaekit.utils.progress import Plain


def test_the_time_left_is_shown_once_it_is_known():
    stream = io.StringIO()
    plain = Plain(stream)
    for step in (0, 50, 100):
        plain.update(step, 100, step / 10, {"distortion": 3.0}, {}, 0.0)
    first, second, last = stream.getvalue().splitlines()
    assert "left" not in first
    assert "left " in second
    assert "?" not in second
    assert last.endswith("left 0:00")
