//! SHA-1 of OpenSSL's provider, called as the library itself calls it.
//!
//! Whatever goes through `EVP_MD_CTX`, and `EVP_MAC` and `HMAC` are built on it, costs OpenSSL 3.0 a
//! heap allocation per digest: starting one frees the provider's state and makes another, and
//! copying one duplicates it. The provider's functions (provider-digest(7)), which
//! `OSSL_PROVIDER_query_operation(3)` hands out, start again in the state that there is. They are
//! the very functions of the provider that the configuration chose, so that a FIPS provider's
//! self-tests and state hold for them as they do otherwise.

#![expect(
    unsafe_code,
    reason = "a provider's functions are C, and the openssl crate does not wrap them"
)]

use super::super::Fault;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

/// Bytes of a digest.
pub(super) const SHA1_LEN: usize = 20;

/// `EVP_MD`.
#[repr(C)]
struct EvpMd([u8; 0]);

/// `OSSL_PROVIDER`.
#[repr(C)]
struct Provider([u8; 0]);

/// `OSSL_ALGORITHM` of `openssl/core.h`.
#[repr(C)]
struct Algorithm {
    names: *const c_char,
    properties: *const c_char,
    implementation: *const Dispatch,
    description: *const c_char,
}

/// `OSSL_DISPATCH` of `openssl/core.h`.
#[repr(C)]
struct Dispatch {
    id: c_int,
    function: Option<unsafe extern "C" fn()>,
}

/// `OSSL_OP_DIGEST` of `openssl/core_dispatch.h`, and the functions of that operation.
const OP_DIGEST: c_int = 1;
const NEWCTX: c_int = 1;
const INIT: c_int = 2;
const UPDATE: c_int = 3;
const FINAL: c_int = 4;
const FREECTX: c_int = 6;

type NewCtx = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type Init = unsafe extern "C" fn(*mut c_void, *const c_void) -> c_int;
type Update = unsafe extern "C" fn(*mut c_void, *const u8, usize) -> c_int;
type Final = unsafe extern "C" fn(*mut c_void, *mut u8, *mut usize, usize) -> c_int;
type FreeCtx = unsafe extern "C" fn(*mut c_void);

// Of libcrypto, which the openssl crate links.
unsafe extern "C" {
    fn EVP_MD_fetch(context: *mut c_void, name: *const c_char, query: *const c_char) -> *mut EvpMd;
    fn EVP_MD_free(md: *mut EvpMd);
    fn EVP_MD_get0_provider(md: *const EvpMd) -> *const Provider;
    fn OSSL_PROVIDER_get0_provider_ctx(provider: *const Provider) -> *mut c_void;
    fn OSSL_PROVIDER_query_operation(
        provider: *const Provider,
        operation: c_int,
        no_cache: *mut c_int,
    ) -> *const Algorithm;
    fn OSSL_PROVIDER_unquery_operation(
        provider: *const Provider,
        operation: c_int,
        algorithms: *const Algorithm,
    );
}

/// The digest as the configuration chose it. While it lives, so does its provider.
struct Fetched(NonNull<EvpMd>);

impl Fetched {
    fn sha1() -> Result<Fetched, Fault> {
        openssl::init();
        // SAFETY: the default library context, a terminated name, no property query.
        let md = unsafe { EVP_MD_fetch(null_mut(), c"SHA1".as_ptr(), null()) };
        NonNull::new(md).map(Fetched).ok_or(Fault)
    }

    fn provider(&self) -> *const Provider {
        // SAFETY: a living digest.
        unsafe { EVP_MD_get0_provider(self.0.as_ptr()) }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: fetched once, freed once.
        unsafe { EVP_MD_free(self.0.as_ptr()) };
    }
}

/// What a provider does for a digest.
#[derive(Clone, Copy)]
struct Functions {
    new: NewCtx,
    init: Init,
    update: Update,
    finish: Final,
    free: FreeCtx,
}

impl Functions {
    /// Those of the provider's SHA-1.
    fn of(provider: *const Provider) -> Result<Functions, Fault> {
        let mut no_cache = 0;
        // SAFETY: the caller holds the provider by a digest of its own; the flag is ours.
        let algorithms =
            unsafe { OSSL_PROVIDER_query_operation(provider, OP_DIGEST, &raw mut no_cache) };
        if algorithms.is_null() {
            return Err(Fault);
        }
        // SAFETY: as the provider gave it, not given back yet.
        let functions = unsafe { Functions::find(algorithms) };
        // SAFETY: what `query` gave; the functions were copied, which is all that is kept.
        unsafe { OSSL_PROVIDER_unquery_operation(provider, OP_DIGEST, algorithms) };
        functions.ok_or(Fault)
    }

    /// # Safety
    /// `algorithms` is an array as OSSL_PROVIDER_query_operation gives it, for digests.
    unsafe fn find(mut algorithms: *const Algorithm) -> Option<Functions> {
        loop {
            // SAFETY: the array ends with an entry without names, behind which this never reads.
            let algorithm = unsafe { algorithms.as_ref()? };
            if algorithm.names.is_null() {
                return None;
            }
            // SAFETY: a terminated string of the provider's.
            let names = unsafe { CStr::from_ptr(algorithm.names) }.to_bytes();
            if names
                .split(|byte| *byte == b':')
                .any(|name| name.eq_ignore_ascii_case(b"SHA1"))
            {
                // SAFETY: this entry's functions, of the digest operation.
                return unsafe { Functions::read(algorithm.implementation) };
            }
            // SAFETY: there is a further entry, at least the one without names.
            algorithms = unsafe { algorithms.add(1) };
        }
    }

    /// # Safety
    /// `dispatch` is an array of a digest's functions that ends with one of id 0, or null.
    unsafe fn read(dispatch: *const Dispatch) -> Option<Functions> {
        let mut len = 0;
        // SAFETY: the array ends with an entry of id 0, behind which this never reads.
        while unsafe { dispatch.add(len).as_ref()? }.id != 0 {
            len += 1;
        }
        // SAFETY: so many entries were just read; they live as long as the provider.
        let entries = unsafe { std::slice::from_raw_parts(dispatch, len) };
        // SAFETY: core_dispatch.h gives the function of each of these ids the type of its field.
        unsafe {
            Some(Functions {
                new: typed(entries, NEWCTX)?,
                init: typed(entries, INIT)?,
                update: typed(entries, UPDATE)?,
                finish: typed(entries, FINAL)?,
                free: typed(entries, FREECTX)?,
            })
        }
    }
}

/// The function of an id.
///
/// # Safety
/// `F` is a function pointer of that function's type.
unsafe fn typed<F: Copy>(entries: &[Dispatch], id: c_int) -> Option<F> {
    let function = entries.iter().find(|entry| entry.id == id)?.function?;
    // SAFETY: all function pointers are alike, and the caller says what this one takes.
    Some(unsafe { std::mem::transmute_copy::<unsafe extern "C" fn(), F>(&function) })
}

/// A digest state that is used again and again.
pub(super) struct Sha1 {
    functions: Functions,
    state: NonNull<c_void>,
    /// Keeps the provider, whose code `functions` is.
    _fetched: Fetched,
}

// SAFETY: the state is reached through `&mut self` alone and belongs to no thread; the provider's
// functions may be called from any.
unsafe impl Send for Sha1 {}

impl Sha1 {
    pub(super) fn new() -> Result<Sha1, Fault> {
        let fetched = Fetched::sha1()?;
        let provider = fetched.provider();
        let functions = Functions::of(provider)?;
        // SAFETY: the provider lives, and this is its own function.
        let state = unsafe { (functions.new)(OSSL_PROVIDER_get0_provider_ctx(provider)) };
        Ok(Sha1 {
            functions,
            state: NonNull::new(state).ok_or(Fault)?,
            _fetched: fetched,
        })
    }

    /// The digest of `parts`, one after another.
    pub(super) fn digest(&mut self, parts: &[&[u8]]) -> Result<[u8; SHA1_LEN], Fault> {
        let state = self.state.as_ptr();
        // SAFETY: a state of this provider's, and no parameters.
        check(unsafe { (self.functions.init)(state, null()) })?;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            // SAFETY: a started state; the provider reads the part's bytes.
            check(unsafe { (self.functions.update)(state, part.as_ptr(), part.len()) })?;
        }
        let mut digest = [0; SHA1_LEN];
        let mut len = 0;
        // SAFETY: a started state; the provider writes at most as many bytes as it is told there is
        // room for, and their number.
        check(unsafe {
            (self.functions.finish)(state, digest.as_mut_ptr(), &raw mut len, SHA1_LEN)
        })?;
        if len == SHA1_LEN {
            Ok(digest)
        } else {
            Err(Fault)
        }
    }
}

impl Drop for Sha1 {
    fn drop(&mut self) {
        // SAFETY: made once by this provider, freed once; the provider wipes it.
        unsafe { (self.functions.free)(self.state.as_ptr()) };
    }
}

fn check(result: c_int) -> Result<(), Fault> {
    if result == 1 { Ok(()) } else { Err(Fault) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_as_good_as_new_for_every_digest() {
        let mut sha1 = Sha1::new().unwrap();
        for len in [0, 1, 63, 64, 65, 1_100] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (a, b) = data.split_at(len / 3);
            assert_eq!(
                sha1.digest(&[a, &[], b]).unwrap(),
                openssl::sha::sha1(&data),
                "{len}"
            );
        }
    }

    #[test]
    fn states_work_on_other_threads() {
        let mut sha1 = Sha1::new().unwrap();
        let digest = std::thread::spawn(move || sha1.digest(&[b"abc"]).unwrap());
        assert_eq!(digest.join().unwrap(), openssl::sha::sha1(b"abc"));
    }
}
