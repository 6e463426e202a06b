// Rust's standard library takes random numbers from bcryptprimitives.dll, which every Windows since
// 7 has, and Debian's wine 8 does not.
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) {
    return RtlGenRandom(bytes, (ULONG)count);
}
