//! Beside the fuzzer, and without it: writes seeds and replays inputs.
//!
//! ```text
//! tool targets                    the targets, one a line
//! tool seeds TARGET FOLDER        writes the target's seeds, named by their content's order
//! tool replay TARGET FILE...      runs the target on these files
//! ```

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["targets"] => headlong_fuzz::TARGETS.iter().for_each(|(name, _)| println!("{name}")),
        ["seeds", target, folder] => write_seeds(target, Path::new(folder)),
        ["replay", target, ref files @ ..] if !files.is_empty() => {
            let Some((_, run)) = headlong_fuzz::TARGETS.iter().find(|(name, _)| *name == target) else {
                eprintln!("no target {target}");
                return ExitCode::FAILURE;
            };
            for file in files {
                println!("{file}");
                run(&std::fs::read(file).expect("a file to replay"));
            }
        }
        _ => {
            eprintln!("tool targets | seeds TARGET FOLDER | replay TARGET FILE...");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write_seeds(target: &str, folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder for seeds");
    for (number, seed) in headlong_fuzz::seeds::of(target).iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed).expect("a folder for seeds");
    }
}
