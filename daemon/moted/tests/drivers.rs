//! Drivers and vendor libraries under a root folder of the test's own.

use moted::drivers::state_under;
use moted::flavours::scan;
use std::ffi::OsStr;
use std::path::Path;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().expect("in a folder")).expect("folder");
    std::fs::write(path, text).expect("file");
}

fn state(root: &Path) -> String {
    state_under(root, OsStr::new("/opt/vendor/lib:relative"))
}

#[test]
fn a_modules_version_and_its_coming_and_going_count() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    assert_eq!(state(root), "");
    write(root, "sys/module/nvidia/version", "570.1\n");
    write(root, "sys/module/ext4/version", "1\n");
    assert_eq!(state(root), "nvidia 570.1 ");
    write(root, "sys/module/nvidia/version", "580.2\n");
    write(root, "sys/module/nvidia/srcversion", "ABC\n");
    assert_eq!(state(root), "nvidia 580.2 ABC");
    // A module of the kernel's own has no version.
    write(root, "sys/module/intel_vpu/parameters/x", "1\n");
    assert_eq!(state(root), "intel_vpu  \nnvidia 580.2 ABC");
    // Those of delegates count, too, and no file is read without a limit.
    write(root, "sys/module/galcore/version", &"6".repeat(100_000));
    assert!(state(root).len() < 1_000);
}

#[test]
fn libraries_of_vendors_are_found_where_the_loader_finds_them() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    write(root, "usr/lib/libcuda.so.1", "one");
    write(root, "usr/lib/libpng.so.16", "nobody's");
    write(root, "usr/lib/libcuda.txt", "no library");
    write(
        root,
        "etc/ld.so.conf",
        "# a comment\ninclude /etc/ld.so.conf.d/*.conf\n/named # so\n",
    );
    write(
        root,
        "etc/ld.so.conf.d/cuda.conf",
        "/usr/local/cuda/lib64\n",
    );
    write(root, "etc/ld.so.conf.d/ignored.txt", "/ignored\n");
    write(root, "usr/local/cuda/lib64/libcudart.so.13", "two");
    write(root, "named/libOpenCL.so.1", "three");
    write(root, "ignored/libOpenCL.so.1", "four");
    write(root, "opt/vendor/lib/libcdsprpc.so", "five");
    write(root, "relative/libcdsprpc.so", "six");
    let found = state(root);
    let paths: Vec<&str> = found
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let expected = [
        "/named/libOpenCL.so.1",
        "/opt/vendor/lib/libcdsprpc.so",
        "/usr/lib/libcuda.so.1",
        "/usr/local/cuda/lib64/libcudart.so.13",
    ];
    assert_eq!(paths, expected);

    write(root, "usr/lib/libcuda.so.1", "another version");
    let changed = state(root);
    assert_ne!(changed, found);
    write(root, "usr/lib/libpng.so.16", "another version");
    assert_eq!(state(root), changed);
    // A link that leads elsewhere from now on.
    std::fs::remove_file(root.join("named/libOpenCL.so.1")).expect("removed");
    write(root, "named/libOpenCL.so.1.0.0", "a loader");
    let link = root.join("named/libOpenCL.so.1");
    std::os::unix::fs::symlink("libOpenCL.so.1.0.0", link).expect("link");
    assert_ne!(state(root), changed);
}

#[test]
fn a_configuration_that_includes_itself_ends() {
    let root = tempfile::tempdir().expect("folder");
    write(
        root.path(),
        "etc/ld.so.conf",
        "include ld.so.conf\n/named\n",
    );
    write(root.path(), "named/libcuda.so.1", "one");
    assert!(state(root.path()).starts_with("/named/libcuda.so.1 3 "));
}

#[test]
fn what_was_found_with_another_driver_is_another_matter() {
    let found = scan(&[]);
    let tract = &found.installed[0];
    assert_eq!(&*tract.drivers, "", "the built-in runtime uses no driver");
    let mut other = tract.clone();
    other.drivers = "nvidia 580.2 ABC".into();
    assert_ne!(other.stamp(), tract.stamp());
}
