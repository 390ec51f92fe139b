//! The page with a live room: its built files are those of its sources, and it works in a browser.

use crate::common::run;

const FOLDER: &str = "web";

#[test]
fn the_page_is_built_from_its_sources_and_works_in_a_browser() {
    run(FOLDER, "npm", &["ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"]);
    run(FOLDER, "npm", &["run", "check"]);
    run(FOLDER, "npm", &["test"]);
}
