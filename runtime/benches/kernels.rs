//! Speed of the kernels: every table that this CPU runs, one thread, data in the caches.
//!
//! `cargo bench -p sterna-runtime --bench kernels [-- NAME]`, where a name is slot/table/size.
//! Throughput counts multiply-adds of products and elements of the rest. `record/` has the medians
//! of some CPUs, with compiler, commit and limits on top; `.ci/record` makes them.

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use half::f16;
use half::slice::HalfBitsSliceExt;
use sterna_runtime::Kernels;
use sterna_runtime::kernels::codes::{CodeProduct, Int16};
use sterna_runtime::kernels::{BlockProduct, PanelProduct, QuantizedBlock, Scores, SoftmaxBlock};
use sterna_ternary::planes::{Numbers, PlaneRow, Planes};
use sterna_ternary::table::Codes;
use sterna_ternary::{Dense, Packing, TableType, table};

/// Rows and columns of `down_proj` and of `gate_proj` of BitNet-2B4T.
const SHAPES: [(usize, usize); 2] = [(2560, 6912), (6912, 2560)];
const TOKENS: [usize; 10] = [1, 2, 3, 4, 8, 16, 32, 64, 128, 512];

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

    fn floats(&mut self, n: usize) -> Vec<f32> {
        let float = || self.next(2001) as f32 / 1000.0 - 1.0;
        std::iter::repeat_with(float).take(n).collect()
    }
}

/// Calls `bench` with every table but the slow one.
fn each_table(mut bench: impl FnMut(&'static Kernels)) {
    let tables = Kernels::available().iter();
    tables.filter(|t| t.name != "scalar").for_each(|t| bench(t));
}

fn ternary(group: &mut BenchmarkGroup<WallTime>) {
    for packing in Packing::ALL {
        for (rows, columns) in SHAPES {
            let mut random = Random(1);
            let (row_bytes, padded) = (packing.row_bytes(columns), packing.padded_columns(columns));
            let (mut packed, mut trits) = (vec![0; rows * row_bytes], vec![0; columns]);
            for row in packed.chunks_exact_mut(row_bytes) {
                trits.fill_with(|| random.next(3) as i8 - 1);
                packing.pack_row(&trits, row);
            }
            let mut q = vec![0; TOKENS[9] * padded];
            for q in q.chunks_exact_mut(padded) {
                q[..columns].fill_with(|| (random.next(255) - 127) as i8);
            }
            let sum = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum();
            let q_sums: Vec<i32> = q.chunks_exact(padded).map(sum).collect();
            let mut sums = vec![0; TOKENS[9] * rows];
            each_table(|kernels| {
                for tokens in TOKENS {
                    let name = format!(
                        "gemm_{}/{}/{rows}x{columns}x{tokens}",
                        packing.name(),
                        kernels.name
                    );
                    let (q, q_sums) = (&q[..tokens * padded], &q_sums[..tokens]);
                    let sums = &mut sums[..tokens * rows];
                    group.throughput(Throughput::Elements((rows * columns * tokens) as u64));
                    group.bench_function(name, |b| {
                        b.iter(|| kernels.gemm(packing)(black_box(&packed), q, q_sums, sums));
                    });
                }
            });
        }
    }
}

/// Blocks of `q8_0` and of `q4_0`, of one matrix with one token and with several.
fn blocks(group: &mut BenchmarkGroup<WallTime>) {
    const ROWS: usize = 1024;
    const COLUMNS: usize = 2560;
    let mut random = Random(5);
    let (w, x) = (random.floats(COLUMNS), random.floats(16 * COLUMNS));
    let mut q = vec![QuantizedBlock::default(); x.len() / 32];
    (Kernels::best().quantize_blocks)(&x, &mut q);
    let mut y = vec![0.0; 16 * ROWS];
    for dense in [Dense::Q8_0, Dense::Q4_0] {
        let row_bytes = COLUMNS / 32 * dense.block_bytes().expect("these are blocks");
        let mut rows = vec![0; ROWS * row_bytes];
        for row in rows.chunks_exact_mut(row_bytes) {
            dense.pack_row(&w, row);
        }
        each_table(|kernels| {
            let gemm = match dense {
                Dense::Q4_0 => kernels.gemm_q4_0,
                _ => kernels.gemm_q8_0,
            };
            for tokens in [1, 4, 16] {
                let size = format!("{ROWS}x{COLUMNS}x{tokens}");
                let name = format!("gemm_{}/{}/{size}", dense.name(), kernels.name);
                let blocks = COLUMNS / 32;
                let product = BlockProduct {
                    blocks,
                    rows: &rows,
                    x: &q[..tokens * blocks],
                };
                let y = &mut y[..tokens * ROWS];
                group.throughput(Throughput::Elements((ROWS * COLUMNS * tokens) as u64));
                group.bench_function(name, |b| b.iter(|| gemm(black_box(product), y)));
            }
        });
    }
}

/// The planes of a coded table with one token, and whole codes with several: one plane after the
/// other, and all at once where a table has that.
fn planes(group: &mut BenchmarkGroup<WallTime>) {
    const ROWS: usize = 512;
    let mut random = Random(6);
    let mut q: [Int16; 32] = Default::default();
    for q in &mut q {
        q.fill(&random.floats(2560));
    }
    let groups = ROWS * table::groups(2560);
    let mut bytes = |n: usize, below: u64| -> Vec<u8> {
        std::iter::repeat_with(|| random.next(below) as u8)
            .take(n)
            .collect()
    };
    let planes = table::PLANE_BYTES.map(|size| bytes(groups * size, 256));
    let multipliers = bytes(groups, 32);
    let mut sums = vec![0; q.len() * ROWS];
    each_table(|kernels| {
        let mut bench = |name: &str, tokens: usize, count: usize, one_by_one: bool| {
            let planes: Vec<&[u8]> = planes[..count].iter().map(|bytes| &bytes[..]).collect();
            let product = CodeProduct {
                x: &q[..tokens],
                planes: &planes,
                multipliers: &multipliers,
                weight: 1,
            };
            let sums = &mut sums[..tokens * ROWS];
            let name = format!("{name}/{}/{ROWS}x2560x{tokens}", kernels.name);
            group.throughput(Throughput::Elements((ROWS * 2560 * tokens) as u64));
            group.bench_function(name, |b| {
                b.iter(|| {
                    let product = black_box(product);
                    if !one_by_one {
                        return (kernels.codes)(product, sums);
                    }
                    for (plane, product) in product.of_planes().enumerate() {
                        kernels.plane(plane)(product, sums);
                    }
                });
            });
        };
        bench("plane4", 1, 1, true);
        bench("two planes", 1, 2, true);
        if (kernels.prefers_codes)(1) {
            bench("codes of two planes", 1, 2, false);
        }
        for tokens in [1, 2, 3, 4, 6, 8, 16, 32] {
            bench("planes", tokens, 3, true);
            if (kernels.prefers_codes)(tokens) {
                bench("codes", tokens, 3, false);
            }
        }
    });
}

/// The values of rows of a table in planes, of numbers that are distributed like those of an
/// embedding.
fn planes_to_values(group: &mut BenchmarkGroup<WallTime>) {
    const ROWS: usize = 128;
    const COLUMNS: usize = 2560;
    for (table, name) in [
        (TableType::Bf16Planes, "bf16"),
        (TableType::F16Planes, "f16"),
    ] {
        let mut random = Random(8);
        let mut bits: [Vec<u8>; 3] = Default::default();
        let (mut multipliers, mut scales, mut norms) = (Vec::new(), Vec::new(), Vec::new());
        let (mut low, mut exceptions, mut ends) = (Vec::new(), Vec::<u16>::new(), Vec::new());
        for _ in 0..ROWS {
            // The sum of four even distributions is close to a normal one.
            let parts = random.floats(4 * COLUMNS);
            let row: Vec<f32> = parts
                .chunks(4)
                .map(|x| 0.02 * x.iter().sum::<f32>())
                .collect();
            let row = PlaneRow::encode(&row, table);
            for (bits, plane) in bits.iter_mut().zip(&row.code.planes) {
                bits.extend(plane);
            }
            multipliers.extend(&row.code.multipliers);
            scales.push(row.code.scale);
            norms.extend(row.norms);
            low.extend(&row.low);
            let pairs = row.exceptions.as_chunks().0.iter();
            exceptions.extend(pairs.map(|pair| u16::from_le_bytes(*pair)));
            ends.push(exceptions.len() as u32);
        }
        let planes = Planes {
            codes: Codes {
                planes: 3,
                bits: bits.each_ref().map(|bits| &bits[..]),
                multipliers: &multipliers,
                scales: &scales,
                remainders: &[],
            },
            norms: &norms,
            low: &low,
            exceptions: match table {
                TableType::F16Planes => Numbers::F16(exceptions.reinterpret_cast()),
                _ => Numbers::Bf16(exceptions.reinterpret_cast()),
            },
            ends: &ends,
        };
        let mut values = vec![0.0; COLUMNS];
        group.throughput(Throughput::Elements((ROWS * COLUMNS) as u64));
        each_table(|kernels| {
            let name = format!("decode_planes/{}/{name}x{COLUMNS}", kernels.name);
            group.bench_function(name, |b| {
                b.iter(|| {
                    for row in 0..ROWS {
                        (kernels.decode_planes)(black_box(&planes), row, &mut values);
                    }
                });
            });
        });
    }
}

/// Attention over 128 positions of a head of 128 dimensions: panels of keys, for the queries of a
/// token and of a tile of a prompt, and the weights of a token's queries.
fn attention(group: &mut BenchmarkGroup<WallTime>) {
    const DEPTH: usize = 128;
    const ROWS: [usize; 2] = [4, 16];
    let mut random = Random(3);
    let x = random.floats(ROWS[1] * DEPTH);
    let codes: Vec<i16> = x.iter().map(|x| (x * 3e4) as i16).collect();
    let floats = random.floats(DEPTH * DEPTH);
    let halves: Vec<f16> = floats.iter().map(|x| f16::from_f32(*x)).collect();
    let bytes: Vec<i8> = floats.iter().map(|x| (x * 127.0) as i8).collect();
    let mut y = vec![0.0; ROWS[1] * DEPTH];
    fn product<'a, X, T>(x: &'a [X], panels: &'a [T]) -> PanelProduct<'a, X, T> {
        black_box(PanelProduct {
            x,
            panels,
            depth: DEPTH,
            used: DEPTH,
        })
    }
    each_table(|kernels| {
        for rows in ROWS {
            let size = format!("{}/{rows}x{DEPTH}x{DEPTH}", kernels.name);
            let (x, codes) = (&x[..rows * DEPTH], &codes[..rows * DEPTH]);
            let y = &mut y[..rows * DEPTH];
            group.throughput(Throughput::Elements((rows * DEPTH * DEPTH) as u64));
            group.bench_function(format!("panels_f32/{size}"), |b| {
                b.iter(|| (kernels.panels_f32)(product(x, &floats), y));
            });
            group.bench_function(format!("panels_f16/{size}"), |b| {
                b.iter(|| (kernels.panels_f16)(product(x, &halves), y));
            });
            group.bench_function(format!("panels_i8/{size}"), |b| {
                b.iter(|| (kernels.panels_i8)(product(codes, &bytes), y));
            });
        }
        let mut scores = x[..4 * DEPTH].to_vec();
        let mut blocks = [SoftmaxBlock::EMPTY; 4];
        group.throughput(Throughput::Elements(4 * DEPTH as u64));
        group.bench_function(format!("softmax_blocks/{}/4x{DEPTH}", kernels.name), |b| {
            b.iter(|| {
                let scores = Scores {
                    x: black_box(&mut scores),
                    used: DEPTH,
                    seen: &[const { 0..DEPTH }; 4],
                };
                (kernels.softmax_blocks)(scores, &mut blocks);
            });
        });
    });
}

fn elements(group: &mut BenchmarkGroup<WallTime>) {
    const N: usize = 6912;
    let mut random = Random(4);
    let (x, w) = (random.floats(N), random.floats(N));
    let (mut y, mut q) = (x.clone(), vec![0; N]);
    let sums: Vec<i32> = (0..N).map(|_| random.next(100_000) as i32).collect();
    group.throughput(Throughput::Elements(N as u64));
    each_table(|kernels| {
        let mut bench = |slot: &str, run: &mut dyn FnMut()| {
            let name = format!("{slot}/{}/{N}", kernels.name);
            group.bench_function(name, |b| b.iter(&mut *run));
        };
        bench("quantize", &mut || {
            black_box((kernels.quantize)(black_box(&x), &mut q));
        });
        bench("dequantize", &mut || {
            (kernels.dequantize)(black_box(&sums), 3.0, 0.5, &mut y);
        });
        bench("rms_norm", &mut || {
            y.copy_from_slice(&x);
            black_box((kernels.rms_norm)(&mut y, black_box(&w), 1e-5));
        });
        bench("silu_mul", &mut || {
            y.copy_from_slice(&x);
            (kernels.silu_mul)(&mut y, black_box(&w));
        });
        bench("relu2_mul", &mut || {
            y.copy_from_slice(&x);
            (kernels.relu2_mul)(&mut y, black_box(&w));
        });
        bench("gelu_tanh_mul", &mut || {
            y.copy_from_slice(&x);
            (kernels.gelu_tanh_mul)(&mut y, black_box(&w));
        });
    });
}

/// The name of the processor, where the system tells it.
fn cpu() -> String {
    sterna_ternary::system::cpu_name().unwrap_or_else(|| "unknown".to_owned())
}

/// The first line that a program prints, if it is there.
fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|o| o.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn main() {
    println!("cpu       {}", cpu());
    println!("compiler  {}", first_line("rustc", &["--version"]));
    let commit = first_line("git", &["describe", "--always", "--dirty"]);
    println!("commit    {commit}\n");
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(200))
        .sample_size(20)
        .configure_from_args();
    let mut group = criterion.benchmark_group("kernels");
    ternary(&mut group);
    blocks(&mut group);
    planes(&mut group);
    planes_to_values(&mut group);
    attention(&mut group);
    elements(&mut group);
    group.finish();
    criterion.final_summary();
}
