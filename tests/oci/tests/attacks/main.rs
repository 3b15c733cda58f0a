//! Attacks on `hull-oci` from images, volumes and containers: none gets out, none crashes it. One
//! for each bug that other runtimes had, and for each class of them:
//!
//! | CVE | test |
//! |---|---|
//! | 2019-5736 | joining::own_program_as_program_and_as_interpreter_stays_whole |
//! | 2019-16884 | images::mounts_over_proc_are_refused |
//! | 2019-19921, 2023-27561, 2023-28642 | images::links_of_the_image_at_proc_sys_and_dev, races::of_proc |
//! | 2021-30465 | races::of_a_mount_target, races::in_a_shared_volume, races::of_tmpcopyup |
//! | 2021-43784 | limits::sizes_beyond_bounds_are_errors |
//! | 2022-0492 | limits::release_agent_is_not_written |
//! | 2022-29162 | joining::capability_is_not_inheritable |
//! | 2023-25809 | the suite's rootless.groups-of-the-host-stay |
//! | 2024-21626 | caller::descriptors_of_the_caller_stay_outside, races::of_the_folder_of_an_exec |
//! | 2024-45310 | races::of_a_mount_target, races::of_the_working_directory |
//! | 2025-31133 | races::of_dev_null, images::null_and_console_of_the_image |
//! | 2025-52565 | races::of_the_console, images::null_and_console_of_the_image |
//! | 2025-52881 | images::files_below_proc_get_no_writes, joining::procfs_of_the_container_gets_no_writes |
//! | 2026-41579 | races::of_dev, races::of_dev_below_a_tmpfs, images::links_of_the_image_at_proc_sys_and_dev |

mod caller;
mod images;
mod joining;
mod kit;
mod limits;
mod races;
