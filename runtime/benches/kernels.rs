//! Speed of every ternary matrix product: each table that this CPU runs, each packing, three shapes of
//! BitNet-2B4T, 1 to 512 tokens, one thread, in GMAC/s (best of repeated calls).
//!
//! `cargo bench -p sterna-runtime --bench kernels [-- TABLE...]`. A dated record of a quiet machine:
//! `cargo bench -p sterna-runtime --bench kernels > runtime/benches/record/$(date +%F)-CPU.txt`.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use sterna_runtime::Kernels;
use sterna_runtime::bench::Machine;
use sterna_runtime::kernels::Gemm;
use sterna_ternary::Packing;

const SHAPES: [(usize, usize); 3] = [(2560, 2560), (6912, 2560), (2560, 6912)];
const TOKENS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 512];
/// Calls are repeated for so long.
const LONG_ENOUGH: Duration = Duration::from_millis(200);

/// Numbers without a pattern that a kernel could profit from.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % below) as i64
    }
}

/// One matrix and activations for the largest number of tokens.
struct Product {
    rows: usize,
    columns: usize,
    padded: usize,
    packed: Vec<u8>,
    q: Vec<i8>,
    q_sums: Vec<i32>,
}

impl Product {
    fn new(packing: Packing, rows: usize, columns: usize) -> Product {
        let mut random = Random(1);
        let (row_bytes, padded) = (packing.row_bytes(columns), packing.padded_columns(columns));
        let mut packed = vec![0; rows * row_bytes];
        let mut trits = vec![0; columns];
        for row in packed.chunks_exact_mut(row_bytes) {
            trits.fill_with(|| random.next(3) as i8 - 1);
            packing.pack_row(&trits, row);
        }
        let tokens = TOKENS[TOKENS.len() - 1];
        let mut q = vec![0; tokens * padded];
        for q in q.chunks_exact_mut(padded) {
            q[..columns].fill_with(|| (random.next(255) - 127) as i8);
        }
        let sum = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum();
        Product {
            q_sums: q.chunks_exact(padded).map(sum).collect(),
            rows,
            columns,
            padded,
            packed,
            q,
        }
    }

    /// Multiply-adds per second.
    fn speed(&self, gemm: Gemm, tokens: usize) -> f64 {
        let (q, q_sums) = (&self.q[..tokens * self.padded], &self.q_sums[..tokens]);
        let mut sums = vec![0; tokens * self.rows];
        let mut best = f64::INFINITY;
        let start = Instant::now();
        while start.elapsed() < LONG_ENOUGH {
            let call = Instant::now();
            gemm(black_box(&self.packed), q, q_sums, &mut sums);
            black_box(&sums);
            best = best.min(call.elapsed().as_secs_f64());
        }
        (tokens * self.rows * self.columns) as f64 / best
    }
}

/// The first line that a program prints, if it is there.
fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|o| o.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    println!("cpu       {}", Machine::detect().cpu);
    println!("compiler  {}", first_line("rustc", &["--version"]));
    println!(
        "commit    {}",
        first_line("git", &["describe", "--always", "--dirty"])
    );
    print!(
        "\nGMAC/s, one thread\n{:<9} {:<3} {:>11}",
        "table", "", "tokens"
    );
    TOKENS.iter().for_each(|n| print!("{n:>8}"));
    println!();
    for kernels in Kernels::available() {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == kernels.name) {
            continue;
        }
        for packing in Packing::ALL {
            for (rows, columns) in SHAPES {
                let product = Product::new(packing, rows, columns);
                print!(
                    "{:<9} {:<3} {:>11}",
                    kernels.name,
                    packing.name(),
                    format!("{rows} x {columns}")
                );
                for tokens in TOKENS {
                    print!(
                        "{:>8.1}",
                        product.speed(kernels.gemm(packing), tokens) / 1e9
                    );
                }
                println!();
            }
        }
    }
}
