//! Writes the seed corpus into `corpus/parse`, `corpus/decide` and `corpus/mud` of this folder.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in [
        ("parse", wardline_fuzz::parse_seeds()),
        ("decide", wardline_fuzz::decide_seeds()),
        ("mud", wardline_fuzz::mud_seeds()),
    ] {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
        println!("{}: {} inputs", folder.display(), seeds.len());
    }
    Ok(())
}
