//! Memory that the kernel reads and writes beside us.

use std::io;
use std::ptr::{self, NonNull};

/// Zeroed, page-aligned memory that never moves and that Rust references never claim as a
/// whole, so that the kernel may change it at any time. Pages cost nothing until touched.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

impl Region {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1);
        // SAFETY: a private anonymous mapping at an address of the kernel's choice touches no
        // memory that exists already.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap does not map page 0 unasked");
        Ok(Self { start, bytes })
    }

    /// The address of element `index`, if the region is taken as an array of `T`.
    ///
    /// # Panics
    /// When the region is too small for it.
    pub(super) fn element<T>(&self, index: usize) -> *mut T {
        const { assert!(align_of::<T>() <= 4096, "a mapping is aligned to pages") };
        assert!((index + 1) * size_of::<T>() <= self.bytes, "element {index} is outside");
        // SAFETY: the assertion above keeps the result inside the mapping.
        unsafe { self.start.as_ptr().cast::<T>().add(index) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nobody unmaps it but us.
        // Whoever gave its address to a ring declares the region after the ring, so that the
        // ring is gone by now.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
