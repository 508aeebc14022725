import time

import pytest

from fwstudy.runtime import run


def square(number, folder=None):
    """The square; leaves a file that tells that it was computed."""
    if folder is not None:
        (folder / str(number)).touch()
    return number * number


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("ahead", [None, 1, 3])
def test_results_come_in_the_order_of_the_tasks(num_workers, ahead):
    tasks = [(number,) for number in range(11)]
    found = list(run(square, tasks, num_workers, "squares", ahead=ahead))
    assert found == [number * number for number in range(11)]
    assert list(run(square, [], num_workers, "squares", ahead=ahead)) == []


def test_no_more_results_wait_than_are_asked_for(tmp_path):
    tasks = [(number, tmp_path) for number in range(40)]
    results = run(square, tasks, 2, "squares", ahead=2)
    assert next(results) == 0
    time.sleep(0.5)  # workers would go on if they could
    assert len(list(tmp_path.iterdir())) <= 4
    assert len(list(results)) == 39
