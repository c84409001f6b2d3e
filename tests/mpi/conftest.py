"""What the tests under mpirun share."""

import pytest
from mpi4py import MPI

from ddhpc.parallel.communicator import Communicator


@pytest.fixture
def comm():
    """All ranks, with messages of their own."""
    comm = Communicator(MPI.COMM_WORLD.Dup())
    yield comm
    comm.mpi.Barrier()
    comm.free()
