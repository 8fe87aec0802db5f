"""Bulk jobs: units of work that any process on any machine does, once, whatever is interrupted.

A :class:`Work` says what the units are and how one is done. :func:`run_job` does those of one :class:`Shard`, in this
process, in local worker processes or on Ray. Processes and machines share nothing but a folder: see
:mod:`ffplug.bulk.job`.
"""

from ffplug.bulk.job import Failure, Shard, Work
from ffplug.bulk.run import Report, Reporter, run_job

__all__ = ["Failure", "Report", "Reporter", "Shard", "Work", "run_job"]
