//! Ranks that MPI has started: `mpirun -np N sterna train …`.

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Root, Source};

use super::Collective;
use crate::{Error, Result};

/// Largest message in bytes: MPI counts in 32 bits.
const MESSAGE: usize = 1 << 28;

/// All processes of an MPI job.
///
/// MPI ends the job itself when one of its calls fails, so these functions return no errors.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

impl Mpi {
    /// Joins the job. Call it once per process, on the thread that trains.
    ///
    /// # Errors
    /// [`Error::Collective`] for a second call, and for a library that forbids threads besides the
    /// calling one.
    pub fn join() -> Result<Mpi> {
        let fail = |why: &str| Error::Collective(why.to_owned());
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| fail("MPI is initialized already"))?;
        if threading < Threading::Funneled {
            return Err(fail(
                "this MPI library forbids further threads; use one with thread support",
            ));
        }
        Ok(Mpi {
            world: universe.world(),
            _universe: universe,
        })
    }
}

impl Drop for Mpi {
    /// Aborts the job after a panic: the end of MPI waits for all ranks, and they would wait for
    /// this one.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.abort(101);
        }
    }
}

fn as_rank(rank: usize) -> i32 {
    i32::try_from(rank).expect("MPI numbers its ranks with i32")
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        let process = self.world.process_at_rank(as_rank(to));
        bytes.chunks(MESSAGE).for_each(|part| process.send(part));
        Ok(())
    }

    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()> {
        let process = self.world.process_at_rank(as_rank(from));
        for part in bytes.chunks_mut(MESSAGE) {
            process.receive_into(part);
        }
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let process = self.world.process_at_rank(0);
        for part in bytes.chunks_mut(MESSAGE) {
            process.broadcast_into(part);
        }
        Ok(())
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        for part in values.chunks_mut(MESSAGE / size_of::<f32>()) {
            let own = part.to_vec();
            self.world
                .all_reduce_into(&own[..], part, SystemOperation::sum());
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.world.barrier();
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
    }
}
