//! To be written.
pub(super) struct Uring;
impl Uring {
    pub(super) fn new(_: &super::Settings) -> std::io::Result<Self> {
        Err(std::io::Error::from_raw_os_error(libc::ENOSYS))
    }
}
