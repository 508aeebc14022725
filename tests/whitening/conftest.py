"""One thread and one seed for every test of the room."""

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
