"""A real small Slurm cluster on one Linux machine, for the demo, the tests and an admin's rehearsal."""

from hpcproxy.lab.command import HostProcess
from hpcproxy.lab.lab import Lab
from hpcproxy.lab.machine import Machine
from hpcproxy.lab.slurm import JobResult
from hpcproxy.lab.spec import LabSpec, parse_release

__all__ = ["HostProcess", "JobResult", "Lab", "LabSpec", "Machine", "parse_release"]
