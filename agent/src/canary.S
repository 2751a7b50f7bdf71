# The canary: what QEMU boots to show that an accelerator works. ≤512 bytes, a multiboot image
# (https://www.gnu.org/software/grub/manual/multiboot/multiboot.html, address fields set), so
# that it takes the same way into QEMU as a kernel (-kernel).
#
# It does what broken virtualisation fails at: builds page tables, enters long mode, takes traps
# to QEMU on port IO, and loops long enough to be interrupted by the host. Then it prints a phrase on
# COM1 and ends QEMU through isa-debug-exit with status (0x2a << 1) | 1 = 85.
#
#   as --64 -o canary.o canary.S && ld -N -Ttext=0x100000 --oformat binary -o canary.bin canary.o
#
# tests/boot_canary.rs does this where binutils are installed, and compares with CANARY in canary.rs.

        .set BASE,   0x100000           # where the image is loaded
        .set PML4,   0x200000           # page tables: one page each, identity for the first GiB
        .set PDPT,   0x201000
        .set PD,     0x202000
        .set STACK,  0x300000
        .set COM1,   0x3f8
        .set EXIT,   0xf4

        .text
        .code32
        .globl _start
_start:
        .balign 4
header:
        .long 0x1badb002                # multiboot magic
        .long 0x00010000                # flags: the address fields below are valid
        .long -(0x1badb002 + 0x00010000)
        .long header                    # header_addr
        .long BASE                      # load_addr
        .long end                       # load_end_addr
        .long STACK                     # bss_end_addr: the loader zeroes the tables' memory
        .long entry                     # entry_addr

entry:
        cli
        movl $STACK, %esp
        movl $(PDPT + 3), PML4          # present, writable
        movl $(PD + 3), PDPT
        movl $PD, %edi
        movl $0x83, %eax                # present, writable, 2 MiB page
        movl $512, %ecx
1:      movl %eax, (%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 1b
        movl $PML4, %eax
        movl %eax, %cr3
        movl %cr4, %eax
        orl $0x20, %eax                 # PAE
        movl %eax, %cr4
        movl $0xc0000080, %ecx          # EFER
        rdmsr
        orl $0x100, %eax                # LME
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax           # PG, PE
        movl %eax, %cr0
        lgdt gdtr
        ljmp $8, $long

        .code64
long:
        xorl %eax, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $20000000, %ecx            # some host timer ticks' worth of running
2:      decl %ecx
        jnz 2b
        cpuid                           # always an exit to the hypervisor
        movl $phrase, %esi
        movl $(phrase_end - phrase), %ebp
3:      movw $(COM1 + 5), %dx           # line status
4:      inb %dx, %al
        testb $0x20, %al                # transmitter empty
        jz 4b
        movw $COM1, %dx
        lodsb
        outb %al, %dx
        decl %ebp
        jnz 3b
        movl $0x2a, %eax
        movw $EXIT, %dx
        outl %eax, %dx
5:      hlt
        jmp 5b

        .balign 8
gdt:    .quad 0
        .quad 0x00209a0000000000        # code, 64 bit
gdtr:   .word gdtr - gdt - 1
        .long gdt
phrase: .ascii "kulprit canary in long mode\n"
phrase_end:
end:
