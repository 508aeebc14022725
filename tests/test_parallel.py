import time

import cv2
import pytest

from fwstudy.runtime import run, workers


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
    assert 2 <= len(list(tmp_path.iterdir())) <= 4
    assert len(list(results)) == 39 and len(list(tmp_path.iterdir())) == 40


def test_a_cluster_of_two_workers_gives_the_same(tmp_path):
    from dask.distributed import LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        workers(cluster.scheduler_address),
    ):
        found = list(run(square, [(number, tmp_path) for number in range(6)], -1, "squares"))
    assert found == [number * number for number in range(6)]
    assert len(list(tmp_path.iterdir())) == 6


def opencv_threads(_) -> int:
    return cv2.getNumThreads()


def test_processes_that_share_the_cores_have_one_thread_of_opencv_each():
    """joblib 1.6.0 limits the threads of BLAS and OpenMP; OpenCV 4.14 starts one a core in each process."""
    own = cv2.getNumThreads()
    tasks = [(number,) for number in range(4)]
    assert set(run(opencv_threads, tasks, 2, "threads")) == {1}
    assert set(run(opencv_threads, tasks, 1, "threads")) == {own} == {cv2.getNumThreads()}
