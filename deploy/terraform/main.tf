# The bucket, and where a network is named, the block volume and the rules of the network. Any S3 endpoint will do:
# terraform apply -var s3_endpoint=http://127.0.0.1:8333. Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.60"
    }
  }
}

variable "bucket" {
  type    = string
  default = "imagesr"
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "s3_endpoint" {
  description = "An S3 server of another house; empty: AWS"
  type        = string
  default     = ""
}

variable "ec2_endpoint" {
  type    = string
  default = ""
}

variable "vpc" {
  description = "The network of the machine; empty: the bucket alone"
  type        = string
  default     = ""
}

variable "zone" {
  type    = string
  default = "us-east-1a"
}

variable "block_gigabytes" {
  type    = number
  default = 200
  validation {
    condition     = var.block_gigabytes >= 20
    error_message = "Expected a block volume of 20 GB or more."
  }
}

variable "clients" {
  description = "Addresses that may ask the service, which has no password of its own"
  type        = list(string)
  default     = []
}

locals {
  elsewhere = var.s3_endpoint != ""
}

provider "aws" {
  region                      = var.region
  s3_use_path_style           = local.elsewhere
  skip_credentials_validation = local.elsewhere
  skip_requesting_account_id  = local.elsewhere
  skip_metadata_api_check     = local.elsewhere
  skip_region_validation      = local.elsewhere
  endpoints {
    s3  = var.s3_endpoint
    ec2 = var.ec2_endpoint
  }
}

resource "aws_s3_bucket" "data" {
  bucket = var.bucket
}

resource "aws_s3_bucket_versioning" "data" {
  bucket = aws_s3_bucket.data.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "data" {
  bucket = aws_s3_bucket.data.id
  rule {
    id     = "old"
    status = "Enabled"
    filter {
      prefix = ""
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
  depends_on = [aws_s3_bucket_versioning.data]
}

resource "aws_ebs_volume" "block" {
  count             = var.vpc == "" ? 0 : 1
  availability_zone = var.zone
  size              = var.block_gigabytes
  type              = "gp3"
  encrypted         = true
  tags              = { Name = "imagesr" }
}

resource "aws_security_group" "service" {
  count       = var.vpc == "" ? 0 : 1
  name        = "imagesr"
  description = "The service, for those who may ask it"
  vpc_id      = var.vpc
  dynamic "ingress" {
    for_each = var.clients
    content {
      description = "HTTPS"
      from_port   = 443
      to_port     = 443
      protocol    = "tcp"
      cidr_blocks = [ingress.value]
    }
  }
  egress {
    description = "Packages, S3, the registry"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

output "bucket" {
  value = "s3://${aws_s3_bucket.data.id}/data"
}
