/** Where the program is inside every sandbox of this driver. */
export const holdPath = "/koine/hold";

/** What it writes first to its standard output: one byte, before any program of the image has run. */
export const holdSays = { ready: 0x06, missing: 0x15 } as const;

/** The byte on its standard input that lets the image's program run. */
export const holdGo = Buffer.from([1]);

/** Exit codes as shells use them. */
export const holdExitCodes = { missing: 127, notExecutable: 126 } as const;

/** What it writes to standard error when the system refuses to execute what is there. */
export const NOT_EXECUTABLE =
  "koine: the image's program could not be executed: it is of another architecture, or its interpreter is missing\n";

/**
 * A tiny program that is PID 1's only child until the image's own program may run. An engine needs some 200 ms to set up namespaces, file
 * system and limits; with this program inside, that happens before anybody asks, and without anything of the user's having run.
 *
 * `hold` alone sleeps for ever: the place of a program where each call brings its own. `hold CANDIDATE… "" PROGRAM ARGUMENT…` looks whether
 * one of the candidate paths may be executed, says so with one byte, waits for one byte, and becomes the first candidate that the system
 * accepts. It needs nothing of the image: no shell, no C library.
 *
 * @returns an ELF file; null for an architecture that it was not written for
 */
export function holdProgram(architecture: string): Buffer | null {
  switch (architecture) {
    case "x86_64":
    case "amd64":
      return elfFile(
        62,
        withText(X64, (code, length) => code.writeUInt32LE(length, code.indexOf("ba01000000", 0, "hex") + 1)),
      );
    case "aarch64":
    case "arm64":
      return elfFile(
        183,
        withText(ARM64, (code, length) => code.writeInt32LE(0xd280_0002 | (length << 5), ARM64_LENGTH_AT)),
      );
    default:
      return null;
  }
}

const HEADERS_BYTES = 64 + 56;
const LOAD_ADDRESS = 0x40_0000;

/** One loadable segment, read-only and executable, that is the whole file. */
function elfFile(machine: number, code: Buffer): Buffer {
  const headers = Buffer.alloc(HEADERS_BYTES);
  const bytes = HEADERS_BYTES + code.length;
  headers.write("7f454c46020101", "hex");
  headers.writeUInt16LE(2, 16); // an executable
  headers.writeUInt16LE(machine, 18);
  headers.writeUInt32LE(1, 20); // ELF version
  headers.writeBigUInt64LE(BigInt(LOAD_ADDRESS + HEADERS_BYTES), 24); // entry
  headers.writeBigUInt64LE(64n, 32); // program headers
  headers.writeUInt16LE(64, 52); // size of this header
  headers.writeUInt16LE(56, 54); // size of a program header
  headers.writeUInt16LE(1, 56); // one of them
  headers.writeUInt32LE(1, 64); // to be loaded
  headers.writeUInt32LE(5, 68); // readable and executable
  headers.writeBigUInt64LE(BigInt(LOAD_ADDRESS), 80);
  headers.writeBigUInt64LE(BigInt(LOAD_ADDRESS), 88);
  headers.writeBigUInt64LE(BigInt(bytes), 96);
  headers.writeBigUInt64LE(BigInt(bytes), 104);
  headers.writeBigUInt64LE(0x1_0000n, 112); // alignment: the largest page
  return Buffer.concat([headers, code]);
}

/** The machine code of a listing, with the text that it prints at its end. */
function withText(listing: string, setLength: (code: Buffer, length: number) => void): Buffer {
  const lines = listing.split("\n").filter((line) => line.startsWith("  "));
  const code = Buffer.from(lines.map((line) => line.trim().split(" ")[0] ?? "").join(""), "hex");
  setLength(code, Buffer.byteLength(NOT_EXECUTABLE));
  return Buffer.concat([code, Buffer.from(NOT_EXECUTABLE)]);
}

// The listings: bytes as they stand in memory, then the instruction. System calls of x86-64: 0 read, 1 write, 21 access, 34 pause,
// 59 execve, 60 exit; of arm64: 48 faccessat, 63 read, 64 write, 73 ppoll, 93 exit, 221 execve.

/** Registers: rbp the candidates, r12 the program's arguments, r13 the environment, r14 the candidate that is tried. */
const X64 = `
_start:
  59                pop rcx
  4889e3            mov rbx,rsp
  4c8d6ccc08        lea r13,[rsp+rcx*8+0x8]
  488d6b08          lea rbp,[rbx+0x8]
  83f901            cmp ecx,0x1
  0f8ea2000000      jle idle
  4989ec            mov r12,rbp
find:
  498b0424          mov rax,[r12]
  4983c408          add r12,0x8
  4885c0            test rax,rax
  0f848e000000      je idle
  803800            cmp byte [rax],0x0
  75ea              jne find
  4989ee            mov r14,rbp
look:
  498b3e            mov rdi,[r14]
  4983c608          add r14,0x8
  803f00            cmp byte [rdi],0x0
  7443              je missing
  6a01              push 0x1
  5e                pop rsi
  6a15              push 0x15
  58                pop rax
  0f05              syscall
  85c0              test eax,eax
  75e8              jne look
  6a06              push 0x6
  e858000000        call tell
  6a00              push 0x0
  31ff              xor edi,edi
  4889e6            mov rsi,rsp
  6a01              push 0x1
  5a                pop rdx
  31c0              xor eax,eax
  0f05              syscall
  31ff              xor edi,edi
  ffc8              dec eax
  7526              jne leave
  4989ee            mov r14,rbp
run:
  498b3e            mov rdi,[r14]
  4983c608          add r14,0x8
  803f00            cmp byte [rdi],0x0
  741c              je failed
  4c89e6            mov rsi,r12
  4c89ea            mov rdx,r13
  6a3b              push 0x3b
  58                pop rax
  0f05              syscall
  ebe7              jmp run
missing:
  6a15              push 0x15
  e821000000        call tell
  6a7f              push 0x7f
  5f                pop rdi
leave:
  6a3c              push 0x3c
  58                pop rax
  0f05              syscall
failed:
  6a02              push 0x2
  5f                pop rdi
  488d3525000000    lea rsi,[rip+0x25]
  ba01000000        mov edx,0x1
  6a01              push 0x1
  58                pop rax
  0f05              syscall
  6a7e              push 0x7e
  5f                pop rdi
  ebe2              jmp leave
tell:
  488d742408        lea rsi,[rsp+0x8]
  6a01              push 0x1
  5f                pop rdi
  89fa              mov edx,edi
  89f8              mov eax,edi
  0f05              syscall
  c3                ret
idle:
  6a22              push 0x22
  58                pop rax
  0f05              syscall
  ebf9              jmp idle
`;

/** Where the length of the text is set in the listing below: the third instruction of `failed`. */
const ARM64_LENGTH_AT = 0xbc;

/** Registers: x20 the candidates, x22 the program's arguments, x21 the environment, x23 the candidate that is tried. */
const ARM64 = `
_start:
  f30340f9          ldr x19, [sp]
  f4430091          add x20, sp, #0x10
  950e138b          add x21, x20, x19, lsl #3
  7f0600f1          cmp x19, #0x1
  ed060054          b.le idle
  f60314aa          mov x22, x20
find:
  c08640f8          ldr x0, [x22], #8
  800600b4          cbz x0, idle
  01004039          ldrb w1, [x0]
  a1ffff35          cbnz w1, find
  f70314aa          mov x23, x20
look:
  e18640f8          ldr x1, [x23], #8
  22004039          ldrb w2, [x1]
  62030034          cbz w2, missing
  600c8092          mov x0, #0xffffffffffffff9c
  220080d2          mov x2, #0x1
  030080d2          mov x3, #0x0
  080680d2          mov x8, #0x30
  010000d4          svc #0x0
  00ffff35          cbnz w0, look
  c90080d2          mov x9, #0x6
  1f000094          bl tell
  000080d2          mov x0, #0x0
  e1030091          mov x1, sp
  220080d2          mov x2, #0x1
  e80780d2          mov x8, #0x3f
  010000d4          svc #0x0
  e90300aa          mov x9, x0
  000080d2          mov x0, #0x0
  3f0500f1          cmp x9, #0x1
  a1010054          b.ne leave
  f70314aa          mov x23, x20
run:
  e08640f8          ldr x0, [x23], #8
  02004039          ldrb w2, [x0]
  62010034          cbz w2, failed
  e10316aa          mov x1, x22
  e20315aa          mov x2, x21
  a81b80d2          mov x8, #0xdd
  010000d4          svc #0x0
  f9ffff17          b run
missing:
  a90280d2          mov x9, #0x15
  0b000094          bl tell
  e00f80d2          mov x0, #0x7f
leave:
  a80b80d2          mov x8, #0x5d
  010000d4          svc #0x0
failed:
  400080d2          mov x0, #0x2
  a1020010          adr x1, text
  220080d2          mov x2, #0x1
  080880d2          mov x8, #0x40
  010000d4          svc #0x0
  c00f80d2          mov x0, #0x7e
  f8ffff17          b leave
tell:
  e90f1ff8          str x9, [sp, #-16]!
  200080d2          mov x0, #0x1
  e1030091          mov x1, sp
  220080d2          mov x2, #0x1
  080880d2          mov x8, #0x40
  010000d4          svc #0x0
  c0035fd6          ret
idle:
  000080d2          mov x0, #0x0
  010080d2          mov x1, #0x0
  020080d2          mov x2, #0x0
  030080d2          mov x3, #0x0
  040080d2          mov x4, #0x0
  280980d2          mov x8, #0x49
  010000d4          svc #0x0
  f9ffff17          b idle
`;
